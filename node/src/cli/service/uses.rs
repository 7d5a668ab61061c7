//! What a service uses besides its image: networks, secrets, configs, and ports on which it is reached.
//!
//! Services name networks, secrets and configs by id, people by name: [`UseArgs::resolve`] and [`UseEditArgs::resolve`] ask
//! the node, and what they return changes a spec as pure functions do.

use bollard::models::{
    EndpointPortConfig, EndpointSpecModeEnum, Network, NetworkAttachmentConfig, Secret, ServiceSpec,
    TaskSpecContainerSpecConfigs, TaskSpecContainerSpecSecrets,
};
use clap::{Args, ValueEnum};

use super::ports;
use super::references;
use crate::cli::objects::Noun;
use crate::client::Client;
use crate::compose::FileUse;

/// What `service create` is told.
#[derive(Debug, Args)]
pub(super) struct UseArgs {
    /// Join a network: its name, and with alias=NAME what else the service is called there (repeat for several).
    #[arg(long, value_name = "NETWORK[,alias=NAME]")]
    network: Vec<String>,
    /// Put a secret into a file, by default /run/secrets/SECRET (repeat for several).
    #[arg(long, value_name = "SECRET[,target=FILE,uid=ID,gid=ID,mode=0444]")]
    secret: Vec<String>,
    /// Put a config into a file, by default /CONFIG (repeat for several).
    #[arg(long, value_name = "CONFIG[,target=FILE,uid=ID,gid=ID,mode=0444]")]
    config: Vec<String>,
    /// Publish a port, such as 8080:80, 53:53/udp or published=8080,target=80,mode=host (repeat for several).
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

/// What `service update` is told: first it takes away, then it adds.
#[derive(Debug, Args)]
pub(super) struct UseEditArgs {
    /// Join a network, or change the names that the service has there (repeat for several).
    #[arg(long, value_name = "NETWORK[,alias=NAME]")]
    network_add: Vec<String>,
    /// Leave a network (repeat for several).
    #[arg(long, value_name = "NETWORK")]
    network_rm: Vec<String>,
    /// Put a secret into a file, in place of the secret that is there (repeat for several).
    #[arg(long, value_name = "SECRET[,target=FILE,uid=ID,gid=ID,mode=0444]")]
    secret_add: Vec<String>,
    /// Take a secret away (repeat for several).
    #[arg(long, value_name = "SECRET")]
    secret_rm: Vec<String>,
    /// Put a config into a file, in place of the config that is there (repeat for several).
    #[arg(long, value_name = "CONFIG[,target=FILE,uid=ID,gid=ID,mode=0444]")]
    config_add: Vec<String>,
    /// Take a config away (repeat for several).
    #[arg(long, value_name = "CONFIG")]
    config_rm: Vec<String>,
    /// Publish a port (repeat for several).
    #[arg(long, value_name = "PORT")]
    publish_add: Vec<String>,
    /// Do not publish a port of the tasks any more (repeat for several).
    #[arg(long, value_name = "TARGET[/PROTOCOL]")]
    publish_rm: Vec<String>,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

/// How the service's name is answered.
#[derive(Clone, Copy, Debug, Args)]
struct EndpointArgs {
    /// Answer the service's name with one virtual address, or with those of its tasks [default: vip].
    #[arg(long, value_enum, value_name = "MODE")]
    endpoint_mode: Option<EndpointMode>,
}

/// What the service's name is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EndpointMode {
    /// One address that stands for all tasks.
    Vip,
    /// The addresses of the tasks.
    Dnsrr,
}

/// What is to change, in the API's terms.
#[derive(Debug, Default)]
pub(super) struct Uses {
    networks: Vec<NetworkAttachmentConfig>,
    /// Ids and names.
    networks_gone: Vec<String>,
    secrets: Vec<TaskSpecContainerSpecSecrets>,
    secrets_gone: Vec<String>,
    configs: Vec<TaskSpecContainerSpecConfigs>,
    configs_gone: Vec<String>,
    ports: Vec<EndpointPortConfig>,
    ports_gone: Vec<EndpointPortConfig>,
    endpoint_mode: Option<EndpointSpecModeEnum>,
}

impl UseArgs {
    /// Asks for the ids of what is named.
    pub(super) async fn resolve(&self, client: &Client) -> anyhow::Result<Uses> {
        let edits = UseEditArgs {
            network_add: self.network.clone(),
            network_rm: Vec::new(),
            secret_add: self.secret.clone(),
            secret_rm: Vec::new(),
            config_add: self.config.clone(),
            config_rm: Vec::new(),
            publish_add: self.publish.clone(),
            publish_rm: Vec::new(),
            endpoint: self.endpoint,
        };
        edits.resolve(client).await
    }
}

impl UseEditArgs {
    /// Asks for the ids of what is named. What is to be taken away need not be there any more.
    pub(super) async fn resolve(&self, client: &Client) -> anyhow::Result<Uses> {
        let mut uses = Uses {
            secrets_gone: self.secret_rm.clone(),
            configs_gone: self.config_rm.clone(),
            ports: ports::all("--publish", &self.publish_add)?,
            ports_gone: ports::all("--publish-rm", &self.publish_rm)?,
            endpoint_mode: self.endpoint.endpoint_mode.map(|mode| match mode {
                EndpointMode::Vip => EndpointSpecModeEnum::VIP,
                EndpointMode::Dnsrr => EndpointSpecModeEnum::DNSRR,
            }),
            ..Uses::default()
        };
        for text in &self.network_add {
            let mut attachment = references::network(text)?;
            let name = attachment.target.as_deref().unwrap_or_default();
            attachment.target = client.ask::<Network>(&Noun::Network.path(name)).await?.id;
            uses.networks.push(attachment);
        }
        for name in &self.network_rm {
            uses.networks_gone.push(name.clone());
            match client.ask::<Network>(&Noun::Network.path(name)).await {
                Ok(network) => uses.networks_gone.extend([network.id, network.name].into_iter().flatten()),
                Err(error) if error.is_status(404) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for text in &self.secret_add {
            let file = references::file("--secret", "", text)?;
            uses.secrets.push(found(Noun::Secret, file, client).await?.secret());
        }
        for text in &self.config_add {
            let file = references::file("--config", "/", text)?;
            uses.configs.push(found(Noun::Config, file, client).await?.config());
        }
        Ok(uses)
    }
}

/// Returns what was asked for with the id and the whole name of what it names.
async fn found(noun: Noun, file: FileUse, client: &Client) -> anyhow::Result<FileUse> {
    let Secret { id, spec, .. } = client.ask(&noun.path(&file.name)).await?;
    let name = spec.and_then(|spec| spec.name).unwrap_or(file.name);
    Ok(FileUse { id, name, ..file })
}

impl Uses {
    /// Changes what a spec uses; what is added takes the place of what is in the same place.
    pub(super) fn apply(&self, spec: &mut ServiceSpec) {
        let task = spec.task_template.get_or_insert_default();
        let networks = task.networks.get_or_insert_default();
        // Docker's older clients put them there.
        networks.extend(spec.networks.take().unwrap_or_default());
        edit(networks, &self.networks, |present| is_in(&self.networks_gone, &present.target), |one| one.target.clone());
        let container = task.container_spec.get_or_insert_default();
        let is_gone = |present: &TaskSpecContainerSpecSecrets| {
            is_in(&self.secrets_gone, &present.secret_name) || is_in(&self.secrets_gone, &present.secret_id)
        };
        let place = |one: &TaskSpecContainerSpecSecrets| one.file.as_ref().and_then(|file| file.name.clone());
        edit(container.secrets.get_or_insert_default(), &self.secrets, is_gone, place);
        let is_gone = |present: &TaskSpecContainerSpecConfigs| {
            is_in(&self.configs_gone, &present.config_name) || is_in(&self.configs_gone, &present.config_id)
        };
        let place = |one: &TaskSpecContainerSpecConfigs| one.file.as_ref().and_then(|file| file.name.clone());
        edit(container.configs.get_or_insert_default(), &self.configs, is_gone, place);
        self.apply_endpoint(spec);
    }

    fn apply_endpoint(&self, spec: &mut ServiceSpec) {
        if self.ports.is_empty() && self.ports_gone.is_empty() && self.endpoint_mode.is_none() {
            return;
        }
        let endpoint = spec.endpoint_spec.get_or_insert_default();
        endpoint.mode = self.endpoint_mode.or(endpoint.mode);
        let is_gone = |present: &EndpointPortConfig| self.ports_gone.iter().any(|gone| ports::is_same(present, gone));
        edit(endpoint.ports.get_or_insert_default(), &self.ports, is_gone, EndpointPortConfig::clone);
    }
}

fn is_in(names: &[String], name: &Option<String>) -> bool {
    name.as_ref().is_some_and(|name| names.contains(name))
}

/// Takes away what is gone, and puts in what is given, in place of what has the same place.
fn edit<T: Clone, P: PartialEq>(list: &mut Vec<T>, given: &[T], is_gone: impl Fn(&T) -> bool, place: impl Fn(&T) -> P) {
    list.retain(|present| !is_gone(present));
    for one in given {
        list.retain(|present| place(present) != place(one));
        list.push(one.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(id: &str, target: &str) -> TaskSpecContainerSpecSecrets {
        let file = references::file("--secret", "", &format!("{id}-name,target={target}")).unwrap();
        FileUse { id: Some(id.to_owned()), ..file }.secret()
    }

    fn network(text: &str) -> NetworkAttachmentConfig {
        references::network(text).unwrap()
    }

    #[test]
    fn a_new_service_gets_what_it_asks_for_and_an_update_changes_only_what_it_names() {
        let mut spec = ServiceSpec::default();
        let given = Uses {
            networks: vec![network("back,alias=db"), network("front")],
            secrets: vec![secret("s1", "key"), secret("s2", "other")],
            ports: ports::all("--publish", &["8080:80".to_owned(), "53:53/udp".to_owned()]).unwrap(),
            endpoint_mode: Some(EndpointSpecModeEnum::DNSRR),
            ..Uses::default()
        };
        given.apply(&mut spec);
        let change = Uses {
            networks: vec![network("back,alias=data")],
            networks_gone: vec!["front".to_owned()],
            secrets: vec![secret("s3", "key")],
            secrets_gone: vec!["s2-name".to_owned()],
            ports: ports::all("--publish", &["81:81".to_owned()]).unwrap(),
            ports_gone: ports::all("--publish-rm", &["53/udp".to_owned(), "80/udp".to_owned()]).unwrap(),
            ..Uses::default()
        };
        change.apply(&mut spec);
        let task = spec.task_template.unwrap();
        assert_eq!(task.networks.unwrap(), [network("back,alias=data")]);
        let secrets = task.container_spec.unwrap().secrets.unwrap();
        assert_eq!(secrets, [secret("s3", "key")]);
        let endpoint = spec.endpoint_spec.unwrap();
        assert_eq!(endpoint.mode, Some(EndpointSpecModeEnum::DNSRR));
        let targets: Vec<_> = endpoint.ports.unwrap().iter().map(|port| port.target_port.unwrap()).collect();
        assert_eq!(targets, [80, 81]);
    }

    #[test]
    fn what_is_not_given_leaves_how_the_service_is_reached_alone() {
        let mut spec = ServiceSpec::default();
        Uses::default().apply(&mut spec);
        assert_eq!(spec.endpoint_spec, None);
    }
}
