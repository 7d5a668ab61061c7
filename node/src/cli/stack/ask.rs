//! What a node is asked about a stack: which objects there are that it has, or that it names.

use std::collections::HashMap;

use bollard::models::{Network, Secret, Service};

use super::name::StackName;
use super::present::Present;
use crate::cli::objects::{FilterArgs, Noun};
use crate::cli::service;
use crate::client::Client;
use crate::compose::{Blob, NAMESPACE_LABEL, Stack};

/// Returns the objects that matter to the deployment of a stack.
pub(super) async fn present(name: &StackName, stack: &Stack, client: &Client) -> anyhow::Result<Present> {
    let names = |blobs: &[Blob]| FilterArgs::names(blobs.iter().map(|blob| blob.name.as_str()));
    let secrets = data(Noun::Secret, name, &names(&stack.secrets), client).await?;
    let configs = data(Noun::Config, name, &names(&stack.configs), client).await?;
    all(secrets, configs, client).await
}

/// Returns the objects that a stack has, and some that it has not.
pub(super) async fn present_of(name: &StackName, client: &Client) -> anyhow::Result<Present> {
    let none = FilterArgs::default();
    let secrets = data(Noun::Secret, name, &none, client).await?;
    let configs = data(Noun::Config, name, &none, client).await?;
    all(secrets, configs, client).await
}

async fn all(secrets: Vec<Secret>, configs: Vec<Secret>, client: &Client) -> anyhow::Result<Present> {
    let networks: Vec<Network> = client.ask(Noun::Network.collection()).await?;
    let services: Vec<Service> = service::ask(client, Noun::Service.collection()).await?;
    Ok(Present::new(networks, secrets, configs, services))
}

/// Returns the secrets or configs that the stack has, and those with these names. Not all there are: a list of configs has
/// their bytes in it.
async fn data(noun: Noun, name: &StackName, names: &FilterArgs, client: &Client) -> anyhow::Result<Vec<Secret>> {
    let own = FilterArgs::label(NAMESPACE_LABEL, name.as_str());
    let mut found: Vec<Secret> = client.ask(&own.path(noun)).await?;
    if !names.is_empty() {
        found.extend(client.ask::<Vec<Secret>>(&names.path(noun)).await?);
    }
    Ok(found)
}

/// Returns the ids and names of a stack's services.
pub(super) async fn services(name: &StackName, client: &Client) -> anyhow::Result<HashMap<String, String>> {
    let filter = FilterArgs::label(NAMESPACE_LABEL, name.as_str());
    let services: Vec<Service> = service::ask(client, &filter.path(Noun::Service)).await?;
    let names = services.into_iter().filter_map(|service| Some((service.id?, service.spec?.name?)));
    Ok(names.collect())
}
