//! `shoal service update`: changes what was given, and leaves the rest as it is.

use std::process::ExitCode;

use anyhow::Context;
use bollard::models::{Service, ServiceSpec, ServiceUpdateStatusStateEnum};
use clap::Args;

use super::flags::SharedArgs;
use super::mode::{set_concurrent, set_replicas};
use super::options::{EditArgs, Partition, labels, split_command};
use super::rolling::RollingArgs;
use super::uses::{UseEditArgs, Uses};
use super::{WaitArgs, change, converge, find};
use crate::cli::output::Output;
use crate::client::Client;

/// What to change.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Run this image.
    #[arg(long)]
    image: Option<String>,
    /// Replace the arguments by these, split at spaces, quotes kept together; an empty text takes them away.
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true)]
    args: Option<String>,
    /// Set a label of the service, or change it (repeat for several).
    #[arg(long, value_name = "KEY=VALUE")]
    label_add: Vec<String>,
    /// Remove a label of the service (repeat for several).
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// What becomes of the service on the lesser side of a split.
    #[arg(long, value_enum)]
    partition: Option<Partition>,
    /// Keep this many tasks running.
    #[arg(long)]
    replicas: Option<u32>,
    /// Run at most so many tasks of a replicated job at once.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_concurrent: Option<u32>,
    #[command(flatten)]
    lists: EditArgs,
    #[command(flatten)]
    uses: UseEditArgs,
    #[command(flatten)]
    shared: SharedArgs,
    #[command(flatten)]
    rolling: RollingArgs,
    /// Replace the tasks even if nothing else changes.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArgs,
    /// Which, by id or name.
    service: String,
}

pub(super) async fn run(args: UpdateArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let uses = args.uses.resolve(client).await?;
    let service = change(client, output, &args.service, |spec| edit(spec, &args, &uses)).await?;
    output.line(&args.service)?;
    let id = service.id.as_deref().unwrap_or(&args.service);
    let code = converge(args.wait, id, client, output).await?;
    if code == ExitCode::SUCCESS && was_rolled_back(&service, &find(client, id).await?) {
        output.note("the update failed and was rolled back");
        return Ok(ExitCode::FAILURE);
    }
    Ok(code)
}

/// Tells whether a rollout that was not there before has been rolled back.
fn was_rolled_back(before: &Service, after: &Service) -> bool {
    let started = |service: &Service| service.update_status.as_ref().and_then(|status| status.started_at.clone());
    let state = after.update_status.as_ref().and_then(|status| status.state);
    state == Some(ServiceUpdateStatusStateEnum::ROLLBACK_COMPLETED) && started(before) != started(after)
}

fn edit(spec: &mut ServiceSpec, args: &UpdateArgs, uses: &Uses) -> anyhow::Result<()> {
    let map = spec.labels.get_or_insert_default();
    map.extend(labels(&args.label_add));
    map.retain(|key, _| !args.label_rm.contains(key));
    if let Some(partition) = args.partition {
        partition.apply(spec);
    }
    if let Some(replicas) = args.replicas {
        set_replicas(spec, replicas)?;
    }
    if let Some(concurrent) = args.max_concurrent {
        set_concurrent(spec, concurrent)?;
    }
    args.rolling.edit(spec);
    let task = spec.task_template.get_or_insert_default();
    if args.force {
        task.force_update = Some(task.force_update.unwrap_or_default().wrapping_add(1));
    }
    let container = task.container_spec.as_mut().context("the service runs no container")?;
    if let Some(image) = &args.image {
        container.image = Some(image.clone());
    }
    if let Some(text) = &args.args {
        container.args = Some(split_command(text)?);
    }
    args.shared.apply(spec)?;
    args.lists.apply(spec)?;
    uses.apply(spec);
    Ok(())
}

#[cfg(test)]
mod tests {
    use bollard::models::{TaskSpec, TaskSpecContainerSpec};
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: UpdateArgs,
    }

    #[test]
    fn only_what_was_given_changes() {
        let container = TaskSpecContainerSpec {
            image: Some("web:1".to_owned()),
            env: Some(vec!["A=1".to_owned(), "B=2".to_owned()]),
            user: Some("www".to_owned()),
            ..TaskSpecContainerSpec::default()
        };
        let task = TaskSpec { container_spec: Some(container), ..TaskSpec::default() };
        let mut spec = ServiceSpec { task_template: Some(task), ..ServiceSpec::default() };
        let line = ["x", "--image", "web:2", "--env-add", "A=3", "--env-rm", "B", "--args", "-p 80", "--force", "web"];
        edit(&mut spec, &Line::parse_from(line).args, &Uses::default()).unwrap();
        let task = spec.task_template.unwrap();
        let container = task.container_spec.unwrap();
        assert_eq!(container.image.as_deref(), Some("web:2"));
        assert_eq!(container.env.unwrap(), ["A=3"]);
        assert_eq!(container.args.unwrap(), ["-p", "80"]);
        assert_eq!((container.user.as_deref(), task.force_update), (Some("www"), Some(1)));
    }
}
