//! `shoal node`: the members.

use std::process::ExitCode;

use bollard::models::{Node, NodeSpecAvailabilityEnum, NodeState, Reachability};
use clap::Subcommand;

use super::output::Output;
use super::table::table;
use crate::client::Client;

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the nodes.
    #[command(visible_alias = "list")]
    Ls,
    /// Show all that is known of nodes, as JSON.
    Inspect {
        /// Which, by id or name, or `self`.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
}

pub(super) async fn run(command: NodeCommand, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        NodeCommand::Ls => list(client, output).await,
        NodeCommand::Inspect { nodes } => inspect(&nodes, client, output).await,
    }
}

async fn list(client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut nodes = all(client).await?;
    let own = client.docker().info().await.map_err(|error| client.error(error))?.swarm.and_then(|swarm| swarm.node_id);
    nodes.sort_by_key(|node| (hostname(node), node.id.clone()));
    let rows: Vec<_> = nodes.iter().map(|node| row(node, own.as_deref())).collect();
    for line in table(["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE VERSION"], &rows) {
        output.line(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns all nodes.
pub(super) async fn all(client: &Client) -> anyhow::Result<Vec<Node>> {
    Ok(client.docker().list_nodes(None).await.map_err(|error| client.error(error))?)
}

/// Returns a node's name.
pub(super) fn hostname(node: &Node) -> String {
    node.description.as_ref().and_then(|description| description.hostname.clone()).unwrap_or_default()
}

fn row(node: &Node, own: Option<&str>) -> [String; 6] {
    let id = node.id.as_deref().unwrap_or_default();
    let mark = if own == Some(id) { "*" } else { " " };
    let status = match node.status.as_ref().and_then(|status| status.state) {
        Some(NodeState::READY) => "Ready",
        Some(NodeState::DOWN) => "Down",
        Some(NodeState::DISCONNECTED) => "Disconnected",
        Some(NodeState::UNKNOWN) | None => "Unknown",
    };
    let availability = match node.spec.as_ref().and_then(|spec| spec.availability) {
        Some(NodeSpecAvailabilityEnum::DRAIN) => "Drain",
        Some(NodeSpecAvailabilityEnum::PAUSE) => "Pause",
        Some(NodeSpecAvailabilityEnum::ACTIVE | NodeSpecAvailabilityEnum::EMPTY) | None => "Active",
    };
    let manager = match node.manager_status.as_ref().map(|manager| (manager.leader, manager.reachability)) {
        Some((Some(true), _)) => "Leader",
        Some((_, Some(Reachability::REACHABLE))) => "Reachable",
        Some((_, Some(Reachability::UNREACHABLE))) => "Unreachable",
        Some((_, Some(Reachability::UNKNOWN) | None)) => "Unknown",
        None => "",
    };
    let engine = node.description.as_ref().and_then(|description| description.engine.as_ref());
    let version = engine.and_then(|engine| engine.engine_version.clone()).unwrap_or_default();
    [format!("{id} {mark}"), hostname(node), status.to_owned(), availability.to_owned(), manager.to_owned(), version]
}

async fn inspect(names: &[String], client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(client.docker().inspect_node(name).await.map_err(|error| client.error(error))?);
    }
    output.json(&nodes)?;
    Ok(ExitCode::SUCCESS)
}
