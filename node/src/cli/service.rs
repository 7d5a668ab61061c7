//! `shoal service`: what operators declare.

mod converge;
mod create;
mod fields;
mod flags;
mod list;
mod mode;
mod mounts;
mod options;
mod ports;
mod references;
mod rolling;
mod update;
mod uses;

use std::process::ExitCode;

use anyhow::{Context, bail};
use bollard::models::{Service, ServiceSpec};
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::objects::{FilterArgs, remove_stored};
use super::output::Output;
use crate::api::of_models;
use crate::api::status::Stored;
use crate::client::{Client, encoded};
use converge::converge;
pub(super) use list::{HowArgs, all_services, services, tasks_of, tasks_where};
use mode::set_replicas;
pub(super) use options::labels;

/// What to do with services.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Create a service and wait until its tasks run.
    Create(Box<create::CreateArgs>),
    /// List the services.
    #[command(visible_alias = "list")]
    Ls {
        /// Print ids only.
        #[arg(short, long)]
        quiet: bool,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// List the tasks of services.
    Ps(list::PsArgs),
    /// Show all that is known of services, as JSON.
    Inspect {
        /// Which, by id or name.
        #[arg(required = true, value_name = "SERVICE")]
        services: Vec<String>,
    },
    /// Show what the tasks of a service print, on all nodes, in order of time.
    Logs(super::logs::ServiceLogsArgs),
    /// Set how many tasks services should have.
    Scale {
        #[command(flatten)]
        wait: WaitArgs,
        /// Which, by id or name, and how many tasks.
        #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = scale)]
        scales: Vec<(String, u32)>,
    },
    /// Change a service; its tasks are replaced if what they run has changed.
    Update(Box<update::UpdateArgs>),
    /// Go back to what a service was before its last change, or to any version that is kept.
    Rollback(rolling::RollbackArgs),
    /// List what a service is and was, when it was written and on which node.
    History {
        /// Which, by id or name.
        #[arg(value_name = "SERVICE")]
        service: String,
    },
    /// Remove services and their tasks.
    #[command(visible_alias = "remove")]
    Rm {
        /// Which, by id or name.
        #[arg(required = true, value_name = "SERVICE")]
        services: Vec<String>,
    },
}

/// Whether to wait.
#[derive(Clone, Copy, Debug, Args)]
pub struct WaitArgs {
    /// Return at once instead of waiting until the tasks run.
    #[arg(short, long)]
    detach: bool,
    /// Show no progress.
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(command: ServiceCommand, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        ServiceCommand::Create(args) => create::run(*args, client, output).await,
        ServiceCommand::Ls { quiet, filter } => services(quiet, &filter, client, output).await,
        ServiceCommand::Ps(args) => list::tasks(&args, client, output).await,
        ServiceCommand::Inspect { services } => inspect(&services, client, output).await,
        ServiceCommand::Logs(args) => super::logs::service(&args, client, output).await,
        ServiceCommand::Scale { wait, scales } => run_scale(wait, &scales, client, output).await,
        ServiceCommand::Update(args) => update::run(*args, client, output).await,
        ServiceCommand::Rollback(args) => rolling::rollback(&args, client, output).await,
        ServiceCommand::History { service } => rolling::history(&service, client, output).await,
        ServiceCommand::Rm { services } => remove_stored("/services", &services, client, output).await,
    }
}

fn scale(text: &str) -> Result<(String, u32), String> {
    let wrong = || "expected SERVICE=REPLICAS, such as web=5".to_owned();
    let (name, replicas) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    let replicas = replicas.parse().map_err(|_| format!("{replicas:?} is not a number of replicas"))?;
    Ok((name.to_owned(), replicas))
}

/// Returns a service by id or name.
async fn find(client: &Client, name: &str) -> anyhow::Result<Service> {
    ask(client, &format!("/services/{}", encoded(name))).await
}

/// Asks for services or tasks: those hold specs, in which Docker and the models that we parse with spell differently.
pub(super) async fn ask<T: DeserializeOwned>(client: &Client, path: &str) -> anyhow::Result<T> {
    let mut value: Value = client.ask(path).await?;
    of_models(&mut value);
    serde_json::from_value(value).context("the answer of the node is not understood: is it of another version?")
}

/// Changes a service's spec, and once more from the start if somebody else has changed it in between.
async fn change(
    client: &Client,
    output: &mut Output,
    name: &str,
    edit: impl Fn(&mut ServiceSpec) -> anyhow::Result<()>,
) -> anyhow::Result<Service> {
    const ATTEMPTS_MAX: u32 = 5;
    for _ in 0..ATTEMPTS_MAX {
        let mut service = find(client, name).await?;
        let mut spec = service.spec.take().context("the node sent a service without a spec")?;
        edit(&mut spec)?;
        let id = service.id.as_deref().unwrap_or(name);
        let version = service.version.as_ref().and_then(|version| version.index).unwrap_or_default();
        match client.post::<Stored>(&format!("/services/{id}/update?version={version}"), &spec).await {
            Ok(stored) => {
                output.stored(&stored);
                service.spec = Some(spec);
                return Ok(service);
            }
            Err(error) if error.to_string().ends_with("update out of sequence") => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("service {name} was changed by others {ATTEMPTS_MAX} times while it was to be changed: try again")
}

async fn run_scale(
    wait: WaitArgs,
    scales: &[(String, u32)],
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let mut scaled = Vec::new();
    for (name, replicas) in scales {
        let service = change(client, output, name, |spec| set_replicas(spec, *replicas)).await?;
        output.line(&format!("{name} scaled to {replicas}"))?;
        scaled.push(service.id.unwrap_or_else(|| name.clone()));
    }
    converge_all(wait, &scaled, client, output).await
}

/// Waits for one service after the other; goes on where an update was paused, and stops when it is interrupted.
pub(super) async fn converge_all(
    wait: WaitArgs,
    ids: &[String],
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let mut all = ExitCode::SUCCESS;
    for id in ids {
        match converge(wait, id, client, output).await? {
            ExitCode::SUCCESS => {}
            code if code == converge::INTERRUPTED.into() => return Ok(code),
            code => all = code,
        }
    }
    Ok(all)
}

async fn inspect(names: &[String], client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut services = Vec::new();
    for name in names {
        services.push(client.ask::<Value>(&format!("/services/{}", encoded(name))).await?);
    }
    output.json(&services)?;
    Ok(ExitCode::SUCCESS)
}
