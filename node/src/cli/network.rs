//! `shoal network`: names that only the services on one network see of each other.

use std::collections::HashMap;
use std::process::ExitCode;

use bollard::models::{Network, NetworkCreateRequest, NetworkCreateResponse};
use clap::{Args, Subcommand};

use super::objects::{self, FilterArgs, Noun};
use super::output::Output;
use super::service::labels;
use super::table::table;
use super::words::short_id;
use crate::client::Client;

/// The only driver there is.
pub(super) const DRIVER: &str = "overlay";

/// What to do with networks.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make a network; services join it with `service create --network`.
    Create(CreateArgs),
    /// List the networks.
    #[command(visible_alias = "list")]
    Ls {
        /// Print ids only.
        #[arg(short, long)]
        quiet: bool,
        /// Show ids in full.
        #[arg(long)]
        no_trunc: bool,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// Show all that is known of networks, as JSON.
    Inspect {
        /// Which, by id or name.
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Remove networks that no service is on.
    #[command(visible_alias = "remove")]
    Rm {
        /// Which, by id or name.
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
}

/// What to make.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Carry packets with this driver: overlay.
    #[arg(short, long, default_value = DRIVER)]
    driver: String,
    /// Let containers of no service be attached.
    #[arg(long)]
    attachable: bool,
    /// Let nothing out.
    #[arg(long)]
    internal: bool,
    /// Label it (repeat for several).
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Set an option of the driver (repeat for several).
    #[arg(short, long, value_name = "OPTION=VALUE")]
    opt: Vec<String>,
    /// Its name.
    #[arg(value_name = "NETWORK")]
    name: String,
}

pub(super) async fn run(command: NetworkCommand, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        NetworkCommand::Create(args) => {
            let id = create(&request(args), client, output).await?;
            output.line(&id)?;
            Ok(ExitCode::SUCCESS)
        }
        NetworkCommand::Ls { quiet, no_trunc, filter } => list(quiet, no_trunc, &filter, client, output).await,
        NetworkCommand::Inspect { networks } => objects::inspect(Noun::Network, &networks, client, output).await,
        NetworkCommand::Rm { networks } => objects::remove(Noun::Network, &networks, client, output).await,
    }
}

fn request(args: CreateArgs) -> NetworkCreateRequest {
    NetworkCreateRequest {
        name: args.name,
        driver: Some(args.driver),
        attachable: Some(args.attachable),
        internal: Some(args.internal),
        labels: Some(labels(&args.label)),
        options: Some(labels(&args.opt)).filter(|options: &HashMap<_, _>| !options.is_empty()),
        ..NetworkCreateRequest::default()
    }
}

/// Makes a network and returns its id; what the node warns of is noted.
pub(super) async fn create(
    request: &NetworkCreateRequest,
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<String> {
    let made: NetworkCreateResponse = client.post("/networks/create", request).await?;
    if !made.warning.is_empty() {
        output.note(&format!("warning: {}", made.warning));
    }
    Ok(made.id)
}

async fn list(
    quiet: bool,
    no_trunc: bool,
    filter: &FilterArgs,
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let mut networks: Vec<Network> = client.ask(&filter.path(Noun::Network)).await?;
    networks.sort_by(|one, other| one.name.cmp(&other.name));
    let id = |network: &Network| {
        let id = network.id.clone().unwrap_or_default();
        if no_trunc { id } else { short_id(&id) }
    };
    let row = |network: &Network| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        [id(network), text(&network.name), text(&network.driver), text(&network.scope)]
    };
    let lines = match quiet {
        true => networks.iter().map(id).collect(),
        false => table(["NETWORK ID", "NAME", "DRIVER", "SCOPE"], &networks.iter().map(row).collect::<Vec<_>>()),
    };
    lines.iter().try_for_each(|line| output.line(line))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CreateArgs,
    }

    #[test]
    fn a_network_is_asked_for_as_docker_asks() {
        let line = ["x", "--attachable", "--label", "a=b", "-d", "overlay", "--opt", "encrypted", "back"];
        let request = request(Line::parse_from(line).args);
        assert_eq!((request.name.as_str(), request.driver.as_deref()), ("back", Some("overlay")));
        assert_eq!((request.attachable, request.internal), (Some(true), Some(false)));
        assert_eq!(request.labels.unwrap()["a"], "b");
        assert_eq!(request.options.unwrap()["encrypted"], "");
    }
}
