//! Networks: those that the file declares, and how a service is attached to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::models::NetworkAttachmentConfig;

use super::Surroundings;
use super::external::Naming;
use super::tree::{At, ComposeError, wrong};

/// The network of services that name none.
const DEFAULT: &str = "default";

/// A network that services of the stack use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name in the shoal.
    pub name: String,
    /// Whether it must be there already.
    pub external: bool,
    /// Whether containers of no service may be attached.
    pub attachable: bool,
    /// Whether it has no way out.
    pub internal: bool,
    /// Its labels.
    pub labels: HashMap<String, String>,
}

/// All networks of the file, by the names they have in it, and which of them services use.
#[derive(Debug)]
pub(super) struct Networks {
    declared: BTreeMap<String, Network>,
    used: BTreeSet<String>,
}

impl Networks {
    /// Reads the section `networks`.
    pub(super) fn read(section: Vec<(&str, At<'_>)>, surroundings: &Surroundings<'_>) -> Result<Self, ComposeError> {
        let plain = |name: &str| Network {
            name: surroundings.scoped(name),
            external: false,
            attachable: false,
            internal: false,
            labels: surroundings.labelled(HashMap::new()),
        };
        let mut declared = BTreeMap::from([(DEFAULT.to_owned(), plain(DEFAULT))]);
        for (name, at) in section {
            let network = network(name, plain(name), &at, surroundings)?;
            declared.insert(name.to_owned(), network);
        }
        Ok(Self { declared, used: BTreeSet::new() })
    }

    /// Returns how `service` is attached: to the networks that it names, or else to the stack's default network.
    pub(super) fn attach(
        &mut self,
        service: &str,
        at: Option<&At<'_>>,
    ) -> Result<Vec<NetworkAttachmentConfig>, ComposeError> {
        let mut attachments = Vec::new();
        match at {
            None => attachments.push(self.attachment(DEFAULT, service, Vec::new(), None)?),
            Some(at) if at.is_map() => {
                for (name, at) in at.entries()? {
                    let aliases = aliases(&at)?;
                    attachments.push(self.attachment(name, service, aliases, Some(&at))?);
                }
            }
            Some(at) => {
                for at in at.items()? {
                    attachments.push(self.attachment(&at.text()?, service, Vec::new(), Some(&at))?);
                }
            }
        }
        Ok(attachments)
    }

    fn attachment(
        &mut self,
        name: &str,
        service: &str,
        aliases: Vec<String>,
        at: Option<&At<'_>>,
    ) -> Result<NetworkAttachmentConfig, ComposeError> {
        let Some(network) = self.declared.get(name) else {
            let path = at.cloned();
            let reason = format!("the network {name:?} is not declared in the section `networks`");
            return Err(path.map_or(ComposeError::Yaml(reason.clone()), |at| wrong(&at, reason)));
        };
        self.used.insert(name.to_owned());
        let own = [service.to_owned()];
        Ok(NetworkAttachmentConfig {
            target: Some(network.name.clone()),
            aliases: Some(own.into_iter().chain(aliases).collect()),
            driver_opts: None,
        })
    }

    /// Returns the networks that services use, in order of name.
    pub(super) fn used(self) -> Vec<Network> {
        let Self { declared, used } = self;
        declared.into_iter().filter(|(name, _)| used.contains(name)).map(|(_, network)| network).collect()
    }
}

fn aliases(at: &At<'_>) -> Result<Vec<String>, ComposeError> {
    let mut aliases = Vec::new();
    for (key, at) in at.entries()? {
        match key {
            "aliases" => aliases = at.texts()?,
            // Which network comes first in the container: there is one interface.
            "priority" | "gw_priority" => {}
            _ => return Err(at.unknown()),
        }
    }
    Ok(aliases)
}

fn network(
    name: &str,
    mut network: Network,
    at: &At<'_>,
    surroundings: &Surroundings<'_>,
) -> Result<Network, ComposeError> {
    let mut naming = Naming::default();
    for (key, at) in at.entries()? {
        match key {
            "driver" => match at.text()?.as_str() {
                "overlay" | "" => {}
                other => return Err(wrong(&at, format!("the driver {other:?} is not supported, only overlay"))),
            },
            "attachable" => network.attachable = at.truth()?,
            "internal" => network.internal = at.truth()?,
            "labels" => network.labels = surroundings.labelled(at.labels()?),
            _ if naming.take(key, &at)? => {}
            _ => return Err(at.unknown()),
        }
    }
    network.external = naming.external;
    network.name = naming.resolve(name, surroundings);
    Ok(network)
}
