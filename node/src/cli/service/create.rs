//! `shoal service create`: Docker's flags, as far as shoal has what they ask for.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bollard::models::{
    Limit, ResourceObject, ServiceSpec, ServiceSpecMode, TaskSpec, TaskSpecContainerSpec, TaskSpecPlacement,
    TaskSpecPlacementPreferences, TaskSpecPlacementSpread, TaskSpecResources, TaskSpecRestartPolicy,
    TaskSpecRestartPolicyConditionEnum,
};
use clap::{Args, ValueEnum};

use super::rolling::RollingArgs;
use super::{WaitArgs, converge, set_replicas};
use crate::api::status::Created;
use crate::cli::output::Output;
use crate::cli::words::{parse_cpus, parse_duration, parse_memory};
use crate::client::Client;

/// What to create.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Call the service so; this is also its DNS name [default: made up from the image's].
    #[arg(long)]
    name: Option<String>,
    /// Keep this many tasks running.
    #[arg(long, default_value_t = 1)]
    replicas: u32,
    /// Run so many tasks, or one on every node that may run it.
    #[arg(long, value_enum, default_value_t = Mode::Replicated)]
    mode: Mode,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    container: ContainerArgs,
    #[command(flatten)]
    restart: RestartArgs,
    #[command(flatten)]
    rolling: RollingArgs,
    /// Label the service (repeat for several).
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Use at most this many CPUs per task, such as 0.5.
    #[arg(long, value_name = "CPUS", value_parser = parse_cpus)]
    limit_cpu: Option<i64>,
    /// Use at most this much memory per task, such as 512m.
    #[arg(long, value_name = "BYTES", value_parser = parse_memory)]
    limit_memory: Option<i64>,
    /// Use at most this many processes per task.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(1..))]
    limit_pids: Option<i64>,
    #[command(flatten)]
    wait: WaitArgs,
    /// The image to run, which must be on a node of the shoal.
    pub(in crate::cli) image: String,
    /// Replaces the image's command.
    #[arg(value_name = "ARG", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(in crate::cli) args: Vec<String>,
}

/// Where tasks run, and what they reserve.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// Run on nodes that meet this only, such as node.labels.disk==ssd (repeat for several).
    #[arg(long, value_name = "CONSTRAINT")]
    constraint: Vec<String>,
    /// Spread over the values of a label, such as spread=node.labels.zone (repeat for several).
    #[arg(long, value_name = "PREFERENCE")]
    placement_pref: Vec<String>,
    /// Run at most this many tasks on one node [default: no bound].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(0..))]
    replicas_max_per_node: Option<i64>,
    /// Reserve this many CPUs per task, such as 0.5.
    #[arg(long, value_name = "CPUS", value_parser = parse_cpus)]
    reserve_cpu: Option<i64>,
    /// Reserve this much memory per task, such as 512m.
    #[arg(long, value_name = "BYTES", value_parser = parse_memory)]
    reserve_memory: Option<i64>,
}

/// How many tasks a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// As many as --replicas says.
    Replicated,
    /// One on every node that may run it.
    Global,
}

/// How the container is made.
#[derive(Debug, Args)]
struct ContainerArgs {
    /// Set an environment variable; without a value it is taken over from here (repeat for several).
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Label the containers (repeat for several).
    #[arg(long, value_name = "KEY=VALUE")]
    container_label: Vec<String>,
    /// Replace the image's entrypoint by this command, split at spaces.
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Call the container's host so [default: the beginning of the task's id].
    #[arg(long)]
    hostname: Option<String>,
    /// Run as this user [default: the image's].
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Run in this directory [default: the image's].
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,
    /// Make the root file system read-only.
    #[arg(long)]
    read_only: bool,
    /// Ask tasks to end with this signal [default: the image's, or SIGTERM].
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Wait this long before a task that was asked to end is killed [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    stop_grace_period: Option<Duration>,
}

/// When a task that ended is followed by another.
#[derive(Debug, Args)]
struct RestartArgs {
    /// Start another task after these ends.
    #[arg(long, value_enum, value_name = "CONDITION", default_value_t = Condition::Any)]
    restart_condition: Condition,
    /// Wait this long before the first restart; doubles with each failure in a row [default: 1s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    restart_delay: Option<Duration>,
    /// Give up after this many restarts in a row [default: never].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(1..))]
    restart_max_attempts: Option<i64>,
}

/// After which ends of a task another is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Condition {
    /// After none.
    None,
    /// After failures.
    OnFailure,
    /// After all.
    Any,
}

pub(super) async fn run(args: CreateArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let wait = args.wait;
    let created: Created = client.post("/services/create", &spec(args)?).await?;
    output.line(&created.id)?;
    output.stored(&created.stored);
    converge(wait, &created.id, client, output).await
}

fn spec(args: CreateArgs) -> anyhow::Result<ServiceSpec> {
    let limits = Limit { nano_cpus: args.limit_cpu, memory_bytes: args.limit_memory, pids: args.limit_pids };
    let reservations = ResourceObject {
        nano_cpus: args.place.reserve_cpu,
        memory_bytes: args.place.reserve_memory,
        generic_resources: None,
    };
    let task = TaskSpec {
        container_spec: Some(container(args.container, args.image, args.args)?),
        resources: Some(TaskSpecResources {
            limits: Some(limits),
            reservations: Some(reservations),
            ..TaskSpecResources::default()
        }),
        placement: Some(placement(&args.place)),
        restart_policy: Some(restart(&args.restart)),
        ..TaskSpec::default()
    };
    let mut spec = ServiceSpec {
        name: args.name,
        labels: Some(labels(&args.label)),
        task_template: Some(task),
        ..ServiceSpec::default()
    };
    args.rolling.edit(&mut spec);
    match args.mode {
        Mode::Replicated => set_replicas(&mut spec, args.replicas)?,
        Mode::Global => {
            spec.mode = Some(ServiceSpecMode { global: Some(HashMap::new()), ..ServiceSpecMode::default() })
        }
    }
    Ok(spec)
}

fn placement(args: &PlaceArgs) -> TaskSpecPlacement {
    let preference = |text: &String| {
        // The engine takes the label alone; what is no spread is left as it is, so that it says what is wrong.
        let label = text.strip_prefix("spread=").unwrap_or(text).to_owned();
        TaskSpecPlacementPreferences { spread: Some(TaskSpecPlacementSpread { spread_descriptor: Some(label) }) }
    };
    TaskSpecPlacement {
        constraints: Some(args.constraint.clone()),
        preferences: Some(args.placement_pref.iter().map(preference).collect()),
        max_replicas: args.replicas_max_per_node,
        platforms: None,
    }
}

fn container(args: ContainerArgs, image: String, command: Vec<String>) -> anyhow::Result<TaskSpecContainerSpec> {
    let entrypoint = args.entrypoint.map(|command| command.split_whitespace().map(str::to_owned).collect());
    Ok(TaskSpecContainerSpec {
        image: Some(image),
        labels: Some(labels(&args.container_label)),
        command: entrypoint,
        args: (!command.is_empty()).then_some(command),
        hostname: args.hostname,
        env: Some(args.env.iter().map(|entry| variable(entry)).collect::<anyhow::Result<_>>()?),
        dir: args.workdir,
        user: args.user,
        read_only: args.read_only.then_some(true),
        stop_signal: args.stop_signal,
        stop_grace_period: args.stop_grace_period.map(nanoseconds),
        ..TaskSpecContainerSpec::default()
    })
}

fn restart(args: &RestartArgs) -> TaskSpecRestartPolicy {
    let condition = match args.restart_condition {
        Condition::None => TaskSpecRestartPolicyConditionEnum::NONE,
        Condition::OnFailure => TaskSpecRestartPolicyConditionEnum::ON_FAILURE,
        Condition::Any => TaskSpecRestartPolicyConditionEnum::ANY,
    };
    TaskSpecRestartPolicy {
        condition: Some(condition),
        delay: args.restart_delay.map(nanoseconds),
        max_attempts: args.restart_max_attempts,
        window: None,
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Returns labels as a map; one without a value has an empty one.
pub(super) fn labels(given: &[String]) -> HashMap<String, String> {
    let split = |label: &String| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        (key.to_owned(), value.to_owned())
    };
    given.iter().map(split).collect()
}

/// Returns `NAME=value`; a name alone takes its value from this process.
pub(super) fn variable(given: &str) -> anyhow::Result<String> {
    if given.contains('=') {
        return Ok(given.to_owned());
    }
    let value = std::env::var(given);
    let value = value.with_context(|| format!("--env {given}: it has no value here, write {given}=VALUE"))?;
    Ok(format!("{given}={value}"))
}
