//! What a service uses: its networks, secrets, configs and ports, between Docker's fields and shoal's.
//!
//! Docker's clients name networks by id or name, secrets and configs by both. A spec of shoal's has the network's name and
//! the id of the secret or config; see `docs/design/0031-networks-secrets-configs-stacks.md`.

use bollard::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum as DockerProtocol,
    EndpointPortConfigPublishModeEnum as DockerPublishMode, EndpointSpec, EndpointSpecModeEnum,
    NetworkAttachmentConfig, TaskSpec as DockerTaskSpec, TaskSpecContainerSpec, TaskSpecContainerSpecConfigs,
    TaskSpecContainerSpecFile, TaskSpecContainerSpecFile1, TaskSpecContainerSpecSecrets,
};
use shoal_cluster::Views;
use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::object::{Data, DataKind, DataSpec, NetworkSpec, ObjectName, Objects};
use shoal_cluster::intent::service::file::FileMount;
use shoal_cluster::intent::service::network::{Attachment, Endpoint, EndpointMode, Port, Protocol, PublishMode};

use super::accept::AcceptError;
use super::refuse::check;
use crate::api::networks;

/// Mode of a file unless the client says one, as Docker's client has it.
const MODE: u32 = 0o444;

/// The objects that a spec may use.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct Known {
    networks: Objects<NetworkSpec>,
    secrets: Objects<DataSpec>,
    configs: Objects<DataSpec>,
}

impl Known {
    /// Returns those of these views.
    pub(in crate::api) fn of(views: &Views) -> Self {
        Self::new(&views.networks, &views.secrets, &views.configs)
    }

    /// Returns these.
    pub(super) fn new(
        networks: &Objects<NetworkSpec>,
        secrets: &Objects<DataSpec>,
        configs: &Objects<DataSpec>,
    ) -> Self {
        Self { networks: networks.clone(), secrets: secrets.clone(), configs: configs.clone() }
    }

    /// Returns the name of the network with this name or id.
    fn network(&self, target: &str) -> Option<ObjectName> {
        if networks::is_built_in(target) {
            return Some(ObjectName::built_in());
        }
        let named = self.networks.keys().find(|name| name.as_str() == target);
        named.or_else(|| Some(&self.networks.values().find(|network| network.id.to_string() == target)?.name)).cloned()
    }

    /// Returns the secret or config with this id or, if there is none given, this name.
    fn data(&self, kind: DataKind, id: &str, name: &str) -> Option<&Data> {
        let objects = match kind {
            DataKind::Secret => &self.secrets,
            DataKind::Config => &self.configs,
        };
        match id {
            "" => objects.get(&ObjectName::new(name).ok()?),
            id => objects.values().find(|object| object.id.to_string() == id),
        }
    }
}

/// Returns the networks that a service names, whichever of Docker's two places it names them in.
pub(super) fn networks(
    known: &Known,
    task: Option<Vec<NetworkAttachmentConfig>>,
    service: Option<Vec<NetworkAttachmentConfig>>,
) -> Result<Vec<Attachment>, AcceptError> {
    let configs = task.filter(|networks| !networks.is_empty()).or(service).unwrap_or_default();
    configs.into_iter().map(|config| attachment(known, config)).collect()
}

fn attachment(known: &Known, config: NetworkAttachmentConfig) -> Result<Attachment, AcceptError> {
    let options = config.driver_opts.as_ref().is_some_and(|options| !options.is_empty());
    check(&[(options, "--network driver-opt", "Networks.DriverOpts")])?;
    let target = config.target.unwrap_or_default();
    let network = known.network(&target);
    let network = network.ok_or(AcceptError::Missing { what: "network", name: target })?;
    let alias = |alias: String| {
        Name::new(&alias).map_err(|error| AcceptError::Invalid { field: "Networks.Aliases", reason: error.to_string() })
    };
    let mut aliases = config.aliases.unwrap_or_default().into_iter().map(alias).collect::<Result<Vec<Name>, _>>()?;
    aliases.dedup();
    Ok(Attachment { network, aliases })
}

/// Returns the networks as Docker has them.
pub(super) fn show_networks(attachments: &[Attachment]) -> Option<Vec<NetworkAttachmentConfig>> {
    let shown = |attachment: &Attachment| NetworkAttachmentConfig {
        target: Some(attachment.network.to_string()),
        aliases: some_texts(attachment.aliases.iter().map(Name::to_string).collect()),
        driver_opts: None,
    };
    (!attachments.is_empty()).then(|| attachments.iter().map(shown).collect())
}

/// Names networks by their ids, as Docker's client expects of services that are there.
pub(in crate::api) fn with_network_ids(views: &Views, task: &mut DockerTaskSpec) {
    for attachment in task.networks.iter_mut().flatten() {
        let target = attachment.target.take().unwrap_or_default();
        attachment.target = Some(networks::id_of(views, &target).unwrap_or(target));
    }
}

fn some_texts(texts: Vec<String>) -> Option<Vec<String>> {
    (!texts.is_empty()).then_some(texts)
}

/// Where a secret or config is put, of either of Docker's types.
struct Place {
    name: Option<String>,
    uid: Option<String>,
    gid: Option<String>,
    mode: Option<u32>,
}

/// Takes the secrets and configs of a container from Docker's spec.
pub(super) fn files(known: &Known, spec: &mut TaskSpecContainerSpec) -> Result<Vec<FileMount>, AcceptError> {
    let mut files = Vec::new();
    for secret in spec.secrets.take().unwrap_or_default() {
        let place =
            secret.file.map(|TaskSpecContainerSpecFile { name, uid, gid, mode }| Place { name, uid, gid, mode });
        files.push(file(known, DataKind::Secret, (secret.secret_id, secret.secret_name), place)?);
    }
    for config in spec.configs.take().unwrap_or_default() {
        check(&[(config.runtime.is_some(), "configs that only plugins read", "ContainerSpec.Configs.Runtime")])?;
        let place =
            config.file.map(|TaskSpecContainerSpecFile1 { name, uid, gid, mode }| Place { name, uid, gid, mode });
        files.push(file(known, DataKind::Config, (config.config_id, config.config_name), place)?);
    }
    Ok(files)
}

fn file(
    known: &Known,
    kind: DataKind,
    (id, name): (Option<String>, Option<String>),
    place: Option<Place>,
) -> Result<FileMount, AcceptError> {
    let (id, name) = (id.unwrap_or_default(), name.unwrap_or_default());
    let found = known.data(kind, &id, &name);
    let data = found.ok_or_else(|| AcceptError::Missing {
        what: kind.word(),
        name: if name.is_empty() { id.clone() } else { name.clone() },
    })?;
    let place = place.unwrap_or(Place { name: None, uid: None, gid: None, mode: None });
    let number = |field: &'static str, text: Option<String>| {
        let text = text.filter(|text| !text.is_empty()).unwrap_or_else(|| "0".to_owned());
        let reason = "expected a number, as names of users are known to images only".to_owned();
        text.parse::<u32>().map_err(|_| AcceptError::Invalid { field, reason })
    };
    Ok(FileMount {
        kind,
        id: data.id,
        target: place.name.filter(|name| !name.is_empty()).unwrap_or_else(|| data.name.to_string()),
        name: data.name.clone(),
        uid: number("File.UID", place.uid)?,
        gid: number("File.GID", place.gid)?,
        mode: place.mode.unwrap_or(MODE),
    })
}

/// Writes the secrets and configs of a container into Docker's spec.
pub(super) fn show_files(files: &[FileMount], spec: &mut TaskSpecContainerSpec) {
    for file in files {
        let (name, mode) = (Some(file.target.clone()), Some(file.mode));
        let (uid, gid) = (Some(file.uid.to_string()), Some(file.gid.to_string()));
        let (id, called) = (Some(file.id.to_string()), Some(file.name.to_string()));
        match file.kind {
            DataKind::Secret => spec.secrets.get_or_insert_default().push(TaskSpecContainerSpecSecrets {
                file: Some(TaskSpecContainerSpecFile { name, uid, gid, mode }),
                secret_id: id,
                secret_name: called,
            }),
            DataKind::Config => spec.configs.get_or_insert_default().push(TaskSpecContainerSpecConfigs {
                file: Some(TaskSpecContainerSpecFile1 { name, uid, gid, mode }),
                config_id: id,
                config_name: called,
                ..TaskSpecContainerSpecConfigs::default()
            }),
        }
    }
}

/// Returns how a service is to be reached.
pub(super) fn endpoint(spec: Option<EndpointSpec>) -> Result<Endpoint, AcceptError> {
    let spec = spec.unwrap_or_default();
    let mode = match spec.mode {
        None | Some(EndpointSpecModeEnum::EMPTY | EndpointSpecModeEnum::VIP) => EndpointMode::Vip,
        Some(EndpointSpecModeEnum::DNSRR) => EndpointMode::DnsRr,
    };
    let ports = spec.ports.unwrap_or_default().into_iter().map(port).collect::<Result<_, _>>()?;
    Ok(Endpoint { mode, ports })
}

fn port(port: EndpointPortConfig) -> Result<Port, AcceptError> {
    let number = |field: &'static str, number: Option<i64>| {
        let reason = "expected a port, 0 to 65535".to_owned();
        u16::try_from(number.unwrap_or_default()).map_err(|_| AcceptError::Invalid { field, reason })
    };
    Ok(Port {
        name: port.name.unwrap_or_default(),
        protocol: match port.protocol {
            None | Some(DockerProtocol::EMPTY | DockerProtocol::TCP) => Protocol::Tcp,
            Some(DockerProtocol::UDP) => Protocol::Udp,
            Some(DockerProtocol::SCTP) => Protocol::Sctp,
        },
        target: number("EndpointSpec.Ports.TargetPort", port.target_port)?,
        published: number("EndpointSpec.Ports.PublishedPort", port.published_port)?,
        mode: match port.publish_mode {
            None | Some(DockerPublishMode::EMPTY | DockerPublishMode::INGRESS) => PublishMode::Ingress,
            Some(DockerPublishMode::HOST) => PublishMode::Host,
        },
    })
}

/// Returns how a service is to be reached, as Docker has it.
pub(super) fn show_endpoint(endpoint: &Endpoint) -> EndpointSpec {
    let mode = match endpoint.mode {
        EndpointMode::Vip => EndpointSpecModeEnum::VIP,
        EndpointMode::DnsRr => EndpointSpecModeEnum::DNSRR,
    };
    let ports: Vec<EndpointPortConfig> = endpoint.ports.iter().map(show_port).collect();
    EndpointSpec { mode: Some(mode), ports: (!ports.is_empty()).then_some(ports) }
}

fn show_port(port: &Port) -> EndpointPortConfig {
    EndpointPortConfig {
        name: (!port.name.is_empty()).then(|| port.name.clone()),
        protocol: Some(match port.protocol {
            Protocol::Tcp => DockerProtocol::TCP,
            Protocol::Udp => DockerProtocol::UDP,
            Protocol::Sctp => DockerProtocol::SCTP,
        }),
        target_port: Some(port.target.into()),
        published_port: (port.published != 0).then_some(port.published.into()),
        publish_mode: Some(match port.mode {
            PublishMode::Ingress => DockerPublishMode::INGRESS,
            PublishMode::Host => DockerPublishMode::HOST,
        }),
    }
}

/// Says what of a service is kept and shown, but not served yet.
pub(in crate::api) fn not_served(endpoint: &Endpoint) -> Option<String> {
    let ports: Vec<String> = endpoint.ports.iter().map(|port| port.target.to_string()).collect();
    let text = || format!("published ports are kept and shown, but not open yet: {}", ports.join(", "));
    (!ports.is_empty()).then(text)
}
