//! `shoal node`: the members.

use std::process::ExitCode;

use bollard::models::{Node, NodeSpecAvailabilityEnum, NodeState, Reachability};
use clap::{Args, Subcommand, ValueEnum};

use super::objects::remove_stored;
use super::output::Output;
use super::service::{HowArgs, all_services, tasks_where};
use super::table::table;
use crate::api::status::Stored;
use crate::client::Client;

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the nodes.
    #[command(visible_alias = "list")]
    Ls,
    /// Change a node's availability and labels.
    Update(UpdateArgs),
    /// Remove nodes that are gone for ever, so that they are listed and counted no more.
    #[command(visible_alias = "remove")]
    Rm {
        /// Which, by id or name.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
        /// As Docker has it; a node that is up cannot be removed all the same.
        #[arg(short, long)]
        force: bool,
    },
    /// List the tasks of nodes.
    Ps(NodePsArgs),
    /// Show all that is known of nodes, as JSON.
    Inspect {
        /// Which, by id or name, or `self`.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
}

/// Whose tasks to list.
#[derive(Debug, Args)]
pub struct NodePsArgs {
    #[command(flatten)]
    how: HowArgs,
    /// Which, by id or name, or `self`.
    #[arg(value_name = "NODE", default_value = "self")]
    nodes: Vec<String>,
}

/// What to change of a node.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Let it take tasks, take no new ones, or none at all.
    #[arg(long, value_enum)]
    availability: Option<Availability>,
    /// Set a label, or change it (repeat for several).
    #[arg(long, value_name = "KEY=VALUE")]
    label_add: Vec<String>,
    /// Remove a label (repeat for several).
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Which, by id or name, or `self`.
    node: String,
}

/// Whether a node takes tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Availability {
    /// It does.
    Active,
    /// No new ones; what runs stays.
    Pause,
    /// None; what runs moves away.
    Drain,
}

async fn update(args: &UpdateArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    const ATTEMPTS_MAX: u32 = 5;
    for _ in 0..ATTEMPTS_MAX {
        let node = client.docker().inspect_node(&args.node).await.map_err(|error| client.error(error))?;
        let mut spec = node.spec.unwrap_or_default();
        let labels = spec.labels.get_or_insert_default();
        labels.retain(|key, _| !args.label_rm.contains(key));
        labels.extend(args.label_add.iter().map(|label| {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            (key.to_owned(), value.to_owned())
        }));
        spec.availability = match args.availability {
            Some(Availability::Active) => Some(NodeSpecAvailabilityEnum::ACTIVE),
            Some(Availability::Pause) => Some(NodeSpecAvailabilityEnum::PAUSE),
            Some(Availability::Drain) => Some(NodeSpecAvailabilityEnum::DRAIN),
            None => spec.availability,
        };
        let id = node.id.as_deref().unwrap_or(&args.node);
        let version = node.version.and_then(|version| version.index).unwrap_or_default();
        match client.post::<Stored>(&format!("/nodes/{id}/update?version={version}"), &spec).await {
            Ok(stored) => {
                output.line(&args.node)?;
                output.stored(&stored);
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) if error.to_string().ends_with("update out of sequence") => {}
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("node {} was changed by others {ATTEMPTS_MAX} times while it was to be changed: try again", args.node)
}

pub(super) async fn run(command: NodeCommand, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        NodeCommand::Ls => list(client, output).await,
        NodeCommand::Update(args) => update(&args, client, output).await,
        NodeCommand::Rm { nodes, .. } => remove_stored("/nodes", &nodes, client, output).await,
        NodeCommand::Ps(args) => ps(&args, client, output).await,
        NodeCommand::Inspect { nodes } => inspect(&nodes, client, output).await,
    }
}

async fn ps(args: &NodePsArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut ids = Vec::new();
    for name in &args.nodes {
        let node = client.docker().inspect_node(name).await.map_err(|error| client.error(error))?;
        ids.extend(node.id);
    }
    tasks_where("node", ids, all_services(client).await?, args.how, client, output).await
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
