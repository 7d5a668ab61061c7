//! The command line: what operators type, and what they read.
//!
//! `shoal up`, `shoal demo`, `shoal simulate` and `shoal stack config` run here and now; all other commands speak to a
//! node's API over its socket, as Docker's client does, so they work on any node and see what every other client sees.

mod conflicts;
mod data;
mod events;
mod exec;
mod image;
mod input;
mod join_token;
mod login;
mod logs;
mod network;
mod node;
mod objects;
mod output;
mod plan;
mod service;
pub mod simulate;
pub mod stack;
mod stats;
mod status;
mod table;
pub mod up;
mod version;
mod volume;
pub mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::client::Client;
use objects::Noun;
use output::Output;
use up::UpArgs;

/// Where a node's API is unless told otherwise.
pub const SOCKET: &str = "/run/shoal/shoal.sock";

/// The cluster you cannot decapitate: one binary per machine, no managers to lose.
#[derive(Debug, Parser)]
#[command(name = "shoal", version, propagate_version = false, max_term_width = 100)]
pub struct Cli {
    /// Use the API at this socket.
    #[arg(long, global = true, env = "SHOAL_SOCKET", value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node: found a shoal, or join one with --seed and --token.
    Up(Box<UpArgs>),
    /// Run a shoal of three nodes on this machine and show what it does.
    Demo(DemoArgs),
    /// Simulate the loss of nodes and show which services would drop below their replicas.
    Simulate(simulate::SimulateArgs),
    /// Deploy, check, list and remove stacks: what Compose files declare.
    #[command(subcommand)]
    Stack(stack::StackCommand),
    /// Ask a running node.
    #[command(flatten)]
    Client(ClientCommand),
}

/// How to run the demo.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Leave the three nodes running, and print how to reach them.
    #[arg(long, conflicts_with = "clean")]
    pub keep: bool,
    /// End a demo that was kept, and remove all of it.
    #[arg(long)]
    pub clean: bool,
}

/// What a running node is asked.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Load, pull, list and remove images.
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Create, scale, update and remove services.
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Show what a task prints, on whichever node it runs.
    Logs {
        #[command(flatten)]
        lines: logs::LogsArgs,
        /// Which, by its id or by SERVICE.SLOT.
        #[arg(value_name = "TASK")]
        of: String,
    },
    /// Run a command in a task's container, on whichever node it runs.
    Exec(exec::ExecArgs),
    /// Show what tasks use, asked of the nodes that run them.
    Stats(stats::StatsArgs),
    /// Show what happens to containers, images, services and nodes, as it happens.
    Events(events::EventsArgs),
    /// List, create and remove the volumes of a node.
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Create, list, inspect and remove networks.
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Create, list, inspect and remove secrets: files that tasks get and nobody else is shown.
    #[command(subcommand)]
    Secret(data::DataCommand),
    /// Create, list, inspect and remove configs: files that tasks get.
    #[command(subcommand)]
    Config(data::DataCommand),
    /// List, inspect and update nodes.
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Show whether the shoal is agreed, and who is behind.
    Status(status::StatusArgs),
    /// Show what was written on several nodes that could not hear each other.
    Conflicts(conflicts::ConflictsArgs),
    /// Show which node runs how much, and what would move if nodes failed, joined or were drained.
    Plan(plan::PlanArgs),
    /// Show why a task is where it is, or why it is pending.
    Why(plan::WhyArgs),
    /// Show the versions of this command and of the node.
    Version,
    /// Log in to a registry, for pulls by you and, on this machine as root, by its node.
    Login(login::LoginArgs),
    /// Leave the shoal for good: hand this node's tasks over, forget the shoal, and end.
    Leave {
        /// Leave though no other node is up: what the shoal knows goes with this one.
        #[arg(short, long)]
        force: bool,
    },
    /// Print how another node joins.
    JoinToken(join_token::JoinTokenArgs),
}

impl Cli {
    /// Reads the command line, or prints what is wrong with it, or the help, and exits.
    pub fn read() -> Self {
        let mut cli = Self::parse();
        if let Command::Up(args) = &mut cli.command {
            args.socket.clone_from(&cli.socket);
        }
        cli
    }
}

/// Runs a command that asks a running node, until it is done or interrupted.
///
/// # Errors
/// Whatever keeps it from being done, in words for the operator; see [`report`].
pub fn run(command: ClientCommand, socket: &Path) -> anyhow::Result<ExitCode> {
    wait_for(carry_out(command, socket))
}

fn wait_for(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // A file or pipe that is still being read must not hold up the exit.
    runtime.shutdown_background();
    match done {
        Err(error) if output::is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done,
    }
}

async fn carry_out(command: ClientCommand, socket: &Path) -> anyhow::Result<ExitCode> {
    let mut output = Output::new();
    if let ClientCommand::Version = command {
        return version::run(socket, &mut output).await;
    }
    let client = Client::connect(socket).await?;
    match command {
        ClientCommand::Image(command) => image::run(command, &client, &mut output).await,
        ClientCommand::Service(command) => service::run(command, &client, &mut output).await,
        ClientCommand::Logs { lines, of } => logs::one(&of, &lines, &client).await,
        ClientCommand::Exec(args) => exec::run(args, &client).await,
        ClientCommand::Stats(args) => stats::run(&args, &client, &mut output).await,
        ClientCommand::Events(args) => events::run(&args, &client, &mut output).await,
        ClientCommand::Volume(command) => volume::run(command, &client, &mut output).await,
        ClientCommand::Network(command) => network::run(command, &client, &mut output).await,
        ClientCommand::Secret(command) => data::run(Noun::Secret, command, &client, &mut output).await,
        ClientCommand::Config(command) => data::run(Noun::Config, command, &client, &mut output).await,
        ClientCommand::Node(command) => node::run(command, &client, &mut output).await,
        ClientCommand::Conflicts(args) => conflicts::run(&args, &client, &mut output).await,
        ClientCommand::Plan(args) => plan::plan(args, &client, &mut output).await,
        ClientCommand::Why(args) => plan::why(args, &client, &mut output).await,
        ClientCommand::Status(args) => status::run(args, &client, &mut output).await,
        ClientCommand::Login(args) => login::run(args, &client, &mut output).await,
        ClientCommand::Leave { force } => {
            client.tell(&format!("/swarm/leave?force={force}"), &()).await?;
            output.line("Node left the shoal.")?;
            Ok(ExitCode::SUCCESS)
        }
        ClientCommand::JoinToken(args) => join_token::run(&args, &client, &mut output).await,
        ClientCommand::Version => Ok(ExitCode::SUCCESS),
    }
}

/// Prints an error as `shoal: …` with its causes, and returns the exit status that goes with it.
#[expect(clippy::print_stderr, reason = "the command's last word")]
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("shoal: {error:#}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_socket_may_be_given_before_and_after_the_command() {
        for line in ["shoal --socket /x service ls", "shoal service ls --socket /x"] {
            assert_eq!(parse(line).unwrap().socket, PathBuf::from("/x"), "{line}");
        }
        assert_eq!(parse("shoal status").unwrap().socket, PathBuf::from(SOCKET));
    }

    #[test]
    fn arguments_after_the_image_belong_to_the_service() {
        let cli = parse("shoal service create --name web --replicas 3 web:latest --port 80 -x").unwrap();
        let Command::Client(ClientCommand::Service(service::ServiceCommand::Create(args))) = cli.command else {
            panic!("not a create");
        };
        assert_eq!((args.image.as_str(), args.args.join(" ").as_str()), ("web:latest", "--port 80 -x"));
    }

    #[test]
    fn stacks_have_dockers_commands_beside_the_one_that_asks_no_node() {
        for line in [
            "shoal stack config -c a.yml",
            "shoal stack deploy --compose-file a.yml -c b.yml --prune --detach --with-registry-auth shop",
            "shoal stack deploy -c - --dry-run --resolve-image always shop",
            "shoal stack ls",
            "shoal stack ps --no-trunc shop",
            "shoal stack services -q shop",
            "shoal stack rm shop other",
            "shoal secret create --label a=b key -",
            "shoal config inspect --pretty conf",
            "shoal network ls -q --filter label=a=b",
            "shoal service create -p 80:80 --network back,alias=db --secret key --endpoint-mode dnsrr web",
            "shoal service update --publish-rm 80 --network-rm back --secret-rm key --config-add conf web",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
        assert!(parse("shoal stack deploy -c a.yml bad/name").unwrap_err().to_string().contains("begin with a letter"));
    }

    #[test]
    fn wrong_usage_has_status_2() {
        for line in [
            "shoal",
            "shoal fly",
            "shoal service create",
            "shoal service create --replicas -1 web",
            "shoal service scale",
            "shoal stack deploy shop",
            "shoal stack rm",
            "shoal secret create key",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
