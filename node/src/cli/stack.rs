//! `shoal stack`: what Compose files declare, checked, deployed, listed and removed.
//!
//! A stack is nothing of its own: it is the objects with the label `com.docker.stack.namespace`, as for Docker's client,
//! which can therefore go on where this command has begun. See `docs/stacks.md`.

mod apply;
mod ask;
mod files;
mod name;
mod plan;
mod present;
mod same;
mod step;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::objects::{Failures, FilterArgs, Noun};
use super::output::Output;
use super::service::{self, HowArgs, WaitArgs};
use super::table::table;
use crate::client::Client;
use crate::compose::NAMESPACE_LABEL;
pub(super) use files::read;
use name::StackName;
use plan::Choices;

/// What to do with stacks.
#[derive(Debug, Subcommand)]
pub enum StackCommand {
    /// Check Compose files and print what they declare, as the Docker API has it; asks no node.
    Config(files::ConfigArgs),
    /// Ask a running node.
    #[command(flatten)]
    Client(StackClientCommand),
}

/// What a running node is asked.
#[derive(Debug, Subcommand)]
pub enum StackClientCommand {
    /// Bring about what Compose files declare, and wait until it runs.
    #[command(visible_alias = "up")]
    Deploy(DeployArgs),
    /// List the stacks.
    #[command(visible_alias = "list")]
    Ls,
    /// List the tasks of a stack.
    Ps {
        #[command(flatten)]
        how: HowArgs,
        /// Which.
        stack: StackName,
    },
    /// List the services of a stack.
    Services {
        /// Print ids only.
        #[arg(short, long)]
        quiet: bool,
        /// Which.
        stack: StackName,
    },
    /// Remove stacks: their services, secrets, configs and networks.
    #[command(visible_aliases = ["remove", "down"])]
    Rm {
        /// Which.
        #[arg(required = true, value_name = "STACK")]
        stacks: Vec<StackName>,
    },
}

/// What to deploy.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// Read this Compose file, over those before it; `-` is standard input (repeat for several).
    #[arg(short = 'c', long = "compose-file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Remove what the stack has and the files no longer declare.
    #[arg(long)]
    prune: bool,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Look for an image again only if its name in the file has changed, or always.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ResolveImage::Changed)]
    resolve_image: ResolveImage,
    /// Says nothing: nodes use their own logins and yours, see `shoal login`.
    #[arg(long)]
    with_registry_auth: bool,
    #[command(flatten)]
    wait: WaitArgs,
    /// Name the stack so: it precedes the name of everything in it.
    stack: StackName,
}

/// When an image's name is looked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ResolveImage {
    /// If it is written in another way than before.
    Changed,
    /// At each deployment, so that a tag that has moved is followed.
    Always,
}

/// Carries out a command.
///
/// # Errors
/// What is wrong with the files, with its place in them, or what keeps the node from doing as asked.
pub fn run(command: StackCommand, socket: &Path) -> anyhow::Result<ExitCode> {
    match command {
        StackCommand::Config(args) => files::config(&args),
        StackCommand::Client(command) => super::wait_for(async move {
            let client = Client::connect(socket).await?;
            ask(command, &client, &mut Output::new()).await
        }),
    }
}

async fn ask(command: StackClientCommand, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        StackClientCommand::Deploy(args) => deploy(args, client, output).await,
        StackClientCommand::Ls => list(client, output).await,
        StackClientCommand::Ps { how, stack } => match ask::services(&stack, client).await? {
            services if services.is_empty() => Ok(nothing(&stack, output)),
            services => service::tasks_of(services, how, client, output).await,
        },
        StackClientCommand::Services { quiet, stack } => {
            if ask::services(&stack, client).await?.is_empty() {
                return Ok(nothing(&stack, output));
            }
            let filter = FilterArgs::label(NAMESPACE_LABEL, stack.as_str());
            service::services(quiet, &filter, client, output).await
        }
        StackClientCommand::Rm { stacks } => remove(&stacks, client, output).await,
    }
}

fn nothing(stack: &StackName, output: &mut Output) -> ExitCode {
    output.note(&format!("Nothing found in stack: {stack}"));
    ExitCode::SUCCESS
}

async fn deploy(args: DeployArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let stack = read(&args.files, args.stack.as_str())?;
    stack.warnings.iter().for_each(|warning| output.note(&format!("warning: {warning}")));
    let present = ask::present(&args.stack, &stack, client).await?;
    let choices = Choices { prune: args.prune, repin: args.resolve_image == ResolveImage::Always };
    let steps = plan::deploy(&stack, args.stack.as_str(), &present, choices)?;
    for step in &steps {
        output.line(&step.to_string())?;
    }
    output.line(&step::summary(&steps))?;
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    apply::deploy(steps, args.wait, client, output).await
}

async fn remove(stacks: &[StackName], client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut failures = Failures::default();
    for stack in stacks {
        let present = ask::present_of(stack, client).await?;
        let steps = plan::removal(&present, stack.as_str());
        if steps.is_empty() {
            nothing(stack, output);
        }
        for step in steps {
            output.line(&format!("Removing {} {}", step.noun.word(), step.name))?;
            if let Err(error) = apply::remove(&step, client, output).await {
                failures.add(error, output);
            }
        }
    }
    failures.done()
}

async fn list(client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let services: Vec<bollard::models::Service> = service::ask(client, Noun::Service.collection()).await?;
    let mut stacks: BTreeMap<String, usize> = BTreeMap::new();
    for labels in services.iter().filter_map(|service| service.spec.as_ref()?.labels.as_ref()) {
        if let Some(stack) = labels.get(NAMESPACE_LABEL) {
            *stacks.entry(stack.clone()).or_default() += 1;
        }
    }
    let rows: Vec<_> = stacks.into_iter().map(|(stack, services)| [stack, services.to_string()]).collect();
    table(["NAME", "SERVICES"], &rows).iter().try_for_each(|line| output.line(line))?;
    Ok(ExitCode::SUCCESS)
}
