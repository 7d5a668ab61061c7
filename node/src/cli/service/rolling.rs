//! How a service is rolled out and back: Docker's `--update-…` and `--rollback-…` flags, `rollback` and `history`.

use std::process::ExitCode;
use std::time::Duration;

use bollard::models::{
    ServiceSpec, ServiceSpecRollbackConfigFailureActionEnum as RollbackAction,
    ServiceSpecRollbackConfigOrderEnum as RollbackOrder, ServiceSpecUpdateConfigFailureActionEnum as Action,
    ServiceSpecUpdateConfigOrderEnum as Order,
};
use clap::{Args, ValueEnum};

use super::mode::is_job;
use super::{WaitArgs, converge, find};
use crate::api::rollouts::Past;
use crate::api::status::Stored;
use crate::cli::output::Output;
use crate::cli::table::table;
use crate::cli::words::{ago, parse_duration};
use crate::client::{Client, encoded};

/// How the tasks of a service are replaced.
#[derive(Debug, Default, PartialEq, Args)]
pub(super) struct RollingArgs {
    /// Move this many tasks at once to another revision; 0 moves all [default: 1].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(0..))]
    update_parallelism: Option<i64>,
    /// Wait this long between two moves [default: 0s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    update_delay: Option<Duration>,
    /// Watch a moved task for this long before the next one moves [default: 5s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    update_monitor: Option<Duration>,
    /// Do this when more moves fail than may [default: pause].
    #[arg(long, value_enum, value_name = "ACTION")]
    update_failure_action: Option<UpdateAction>,
    /// Let this part of the tasks fail, between 0 and 1 [default: 0].
    #[arg(long, value_name = "RATIO")]
    update_max_failure_ratio: Option<f64>,
    /// End the old task before the new one starts, or after [default: stop-first].
    #[arg(long, value_enum, value_name = "ORDER")]
    update_order: Option<OrderWord>,
    /// As --update-parallelism, on the way back.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(0..))]
    rollback_parallelism: Option<i64>,
    /// As --update-delay, on the way back.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    rollback_delay: Option<Duration>,
    /// As --update-monitor, on the way back.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    rollback_monitor: Option<Duration>,
    /// Do this when more moves back fail than may [default: pause].
    #[arg(long, value_enum, value_name = "ACTION")]
    rollback_failure_action: Option<RollbackActionWord>,
    /// As --update-max-failure-ratio, on the way back.
    #[arg(long, value_name = "RATIO")]
    rollback_max_failure_ratio: Option<f64>,
    /// As --update-order, on the way back.
    #[arg(long, value_enum, value_name = "ORDER")]
    rollback_order: Option<OrderWord>,
}

/// What follows when an update fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum UpdateAction {
    /// The tasks not yet moved wait.
    Pause,
    /// The others move too.
    Continue,
    /// All move back.
    Rollback,
}

/// What follows when a rollback fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RollbackActionWord {
    /// The tasks not yet moved wait.
    Pause,
    /// The others move too.
    Continue,
}

/// Which task of two goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OrderWord {
    /// The old one ends first.
    StopFirst,
    /// The new one starts first.
    StartFirst,
}

impl RollingArgs {
    /// Puts what was given into a spec, and leaves the rest as it is.
    pub(super) fn edit(&self, spec: &mut ServiceSpec) {
        if is_job(spec) && *self == Self::default() {
            return;
        }
        let mut update = spec.update_config.clone().unwrap_or_default();
        update.parallelism = self.update_parallelism.or(update.parallelism).or(Some(1));
        update.delay = self.update_delay.map(nanoseconds).or(update.delay);
        update.monitor = self.update_monitor.map(nanoseconds).or(update.monitor);
        update.max_failure_ratio = self.update_max_failure_ratio.or(update.max_failure_ratio);
        if let Some(action) = self.update_failure_action {
            update.failure_action = Some(match action {
                UpdateAction::Pause => Action::PAUSE,
                UpdateAction::Continue => Action::CONTINUE,
                UpdateAction::Rollback => Action::ROLLBACK,
            });
        }
        if let Some(order) = self.update_order {
            update.order = Some(match order {
                OrderWord::StopFirst => Order::STOP_FIRST,
                OrderWord::StartFirst => Order::START_FIRST,
            });
        }
        spec.update_config = Some(update);
        let mut rollback = spec.rollback_config.clone().unwrap_or_default();
        rollback.parallelism = self.rollback_parallelism.or(rollback.parallelism).or(Some(1));
        rollback.delay = self.rollback_delay.map(nanoseconds).or(rollback.delay);
        rollback.monitor = self.rollback_monitor.map(nanoseconds).or(rollback.monitor);
        rollback.max_failure_ratio = self.rollback_max_failure_ratio.or(rollback.max_failure_ratio);
        if let Some(action) = self.rollback_failure_action {
            rollback.failure_action = Some(match action {
                RollbackActionWord::Pause => RollbackAction::PAUSE,
                RollbackActionWord::Continue => RollbackAction::CONTINUE,
            });
        }
        if let Some(order) = self.rollback_order {
            rollback.order = Some(match order {
                OrderWord::StopFirst => RollbackOrder::STOP_FIRST,
                OrderWord::StartFirst => RollbackOrder::START_FIRST,
            });
        }
        spec.rollback_config = Some(rollback);
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// What to roll back.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Go back to this version, as `shoal service history` numbers them [default: the one before the present].
    #[arg(long, value_name = "VERSION")]
    to: Option<u64>,
    #[command(flatten)]
    wait: WaitArgs,
    /// Which, by id or name.
    service: String,
}

pub(super) async fn rollback(args: &RollbackArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let service = find(client, &args.service).await?;
    let id = service.id.as_deref().unwrap_or(&args.service);
    let version = service.version.as_ref().and_then(|version| version.index).unwrap_or_default();
    let to = args.to.map_or_else(|| "previous".to_owned(), |to| to.to_string());
    let spec = service.spec.clone().unwrap_or_default();
    let path = format!("/services/{id}/update?version={version}&rollback={to}");
    let stored: Stored = client.post(&path, &spec).await?;
    output.line(&args.service)?;
    output.stored(&stored);
    converge(args.wait, id, client, output).await
}

pub(super) async fn history(name: &str, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let past: Vec<Past> = client.ask(&format!("/shoal/services/{}/history", encoded(name))).await?;
    let row = |(place, past): (usize, Past)| {
        [
            format!("{}{}", past.version, if place == 0 { " *" } else { "" }),
            past.image.split('@').next().unwrap_or_default().to_owned(),
            past.replicas.map_or_else(|| "global".to_owned(), |replicas| replicas.to_string()),
            past.state,
            ago(Some(&past.written_at)),
            past.author,
        ]
    };
    let rows: Vec<[String; 6]> = past.into_iter().enumerate().map(row).collect();
    for line in table(["VERSION", "IMAGE", "REPLICAS", "STATE", "WRITTEN", "ON"], &rows) {
        output.line(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RollingArgs,
    }

    #[test]
    fn only_what_was_given_changes() {
        let mut spec = ServiceSpec::default();
        Line::parse_from(["x", "--update-parallelism", "0", "--update-failure-action", "rollback"])
            .args
            .edit(&mut spec);
        Line::parse_from(["x", "--update-order", "start-first", "--rollback-monitor", "2s"]).args.edit(&mut spec);
        let (update, rollback) = (spec.update_config.unwrap(), spec.rollback_config.unwrap());
        assert_eq!((update.parallelism, update.failure_action), (Some(0), Some(Action::ROLLBACK)));
        assert_eq!((update.order, update.delay), (Some(Order::START_FIRST), None));
        assert_eq!((rollback.parallelism, rollback.monitor), (Some(1), Some(2_000_000_000)));
    }
}
