//! Flags that `service create` and `service update` share: each changes one thing of a spec and leaves the rest.
//!
//! What a service is created from is an empty spec, so that creating is updating it.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    HealthConfig, ServiceSpec, TaskSpec, TaskSpecContainerSpec, TaskSpecContainerSpecPrivilegesSeccomp,
    TaskSpecContainerSpecPrivilegesSeccompModeEnum as SeccompMode, TaskSpecLogDriver,
    TaskSpecRestartPolicyConditionEnum,
};
use clap::{Args, ValueEnum};

use super::options::{labels, split_command};
use crate::cli::words::{parse_cpus, parse_duration, parse_memory};

/// The label that lets set-uid programs raise privileges; see `docs/containers.md`.
const NEW_PRIVILEGES: &str = "shoal.new-privileges";

/// What a task runs and may use.
#[derive(Debug, Args)]
pub(super) struct SharedArgs {
    #[command(flatten)]
    container: ContainerFlags,
    #[command(flatten)]
    privileges: PrivilegeFlags,
    #[command(flatten)]
    health: HealthFlags,
    #[command(flatten)]
    log: LogFlags,
    #[command(flatten)]
    resources: ResourceFlags,
    #[command(flatten)]
    restart: RestartFlags,
}

/// How the container is made.
#[derive(Debug, Args)]
struct ContainerFlags {
    /// Replace the image's entrypoint by this command, split at spaces, quotes kept together.
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
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_only: Option<bool>,
    /// Run a small first process that reaps orphans and hands signals on.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    init: Option<bool>,
    /// Give the command a terminal.
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tty: Option<bool>,
    /// Ask tasks to end with this signal [default: the image's, or SIGTERM].
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Wait this long before a task that was asked to end is killed [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    stop_grace_period: Option<Duration>,
}

/// What the command may do.
#[derive(Debug, Args)]
struct PrivilegeFlags {
    /// Add a capability, such as NET_ADMIN, or ALL (repeat for several).
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability away, or ALL (repeat for several).
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Keep set-uid programs from raising privileges: true, unlike Docker's, unless set to false.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_new_privileges: Option<bool>,
    /// Filter system calls: default or unconfined.
    #[arg(long, value_enum, value_name = "FILTER")]
    seccomp: Option<Seccomp>,
}

/// Which system calls are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Seccomp {
    /// Those that Docker lets through.
    Default,
    /// All.
    Unconfined,
}

/// How tasks are found to be well.
#[derive(Debug, Args)]
struct HealthFlags {
    /// Run this command line in the container; well is exit code 0.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["health_http", "health_tcp", "no_healthcheck"])]
    health_cmd: Option<String>,
    /// Ask the task for this path over HTTP; well is a status from 200 to 399.
    #[arg(long, value_name = "PORT[/PATH]", value_parser = http, conflicts_with_all = ["health_tcp", "no_healthcheck"])]
    health_http: Option<Http>,
    /// Connect to this port of the task.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "no_healthcheck")]
    health_tcp: Option<u16>,
    /// Try this often [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    health_interval: Option<Duration>,
    /// Count a try as failed after this long [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    health_timeout: Option<Duration>,
    /// Do not count failures for this long after the start [default: 0s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    health_start_period: Option<Duration>,
    /// Try this often in that period, at most [default: 5s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    health_start_interval: Option<Duration>,
    /// Replace a task after this many failures in a row [default: 3].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(0..))]
    health_retries: Option<i64>,
    /// Run no health check, whatever the image says.
    #[arg(long)]
    no_healthcheck: bool,
}

/// A port and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Http(u16, String);

/// How much output is kept.
#[derive(Debug, Args)]
struct LogFlags {
    /// Keep output as this driver does: json-file.
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Set max-size (of a file, such as 10m) or max-file (repeat for several).
    #[arg(long, value_name = "OPTION=VALUE")]
    log_opt: Vec<String>,
}

/// What a task may use, and what it reserves.
#[derive(Debug, Args)]
struct ResourceFlags {
    /// Use at most this many CPUs per task, such as 0.5.
    #[arg(long, value_name = "CPUS", value_parser = parse_cpus)]
    limit_cpu: Option<i64>,
    /// Use at most this much memory per task, such as 512m.
    #[arg(long, value_name = "BYTES", value_parser = parse_memory)]
    limit_memory: Option<i64>,
    /// Use at most this many processes per task; 0 is no limit.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(0..))]
    limit_pids: Option<i64>,
    /// Reserve this many CPUs per task, such as 0.5.
    #[arg(long, value_name = "CPUS", value_parser = parse_cpus)]
    reserve_cpu: Option<i64>,
    /// Reserve this much memory per task, such as 512m.
    #[arg(long, value_name = "BYTES", value_parser = parse_memory)]
    reserve_memory: Option<i64>,
    /// Run at most this many tasks on one node; 0 is no bound.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(0..))]
    replicas_max_per_node: Option<i64>,
}

/// When a task that ended is followed by another.
#[derive(Debug, Args)]
struct RestartFlags {
    /// Start another task after these ends [default: any].
    #[arg(long, value_enum, value_name = "CONDITION")]
    restart_condition: Option<Condition>,
    /// Wait this long before the first restart; doubles with each failure in a row [default: 1s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    restart_delay: Option<Duration>,
    /// Give up after this many restarts, in a row or within --restart-window; 0 is never.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(0..))]
    restart_max_attempts: Option<i64>,
    /// Count the restarts of so long only; 0s counts those in a row.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    restart_window: Option<Duration>,
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

impl SharedArgs {
    /// Changes what was given.
    pub(super) fn apply(&self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        let task = spec.task_template.get_or_insert_default();
        self.resources.apply(task);
        self.restart.apply(task);
        self.log.apply(task)?;
        let container = task.container_spec.get_or_insert_default();
        self.container.apply(container)?;
        self.privileges.apply(container);
        self.health.apply(container);
        Ok(())
    }
}

impl ContainerFlags {
    fn apply(&self, container: &mut TaskSpecContainerSpec) -> anyhow::Result<()> {
        if let Some(command) = &self.entrypoint {
            container.command = Some(split_command(command)?);
        }
        set(&mut container.hostname, self.hostname.clone());
        set(&mut container.user, self.user.clone());
        set(&mut container.dir, self.workdir.clone());
        set(&mut container.read_only, self.read_only);
        set(&mut container.init, self.init);
        set(&mut container.tty, self.tty);
        set(&mut container.stop_signal, self.stop_signal.clone());
        set(&mut container.stop_grace_period, self.stop_grace_period.map(nanoseconds));
        Ok(())
    }
}

impl PrivilegeFlags {
    fn apply(&self, container: &mut TaskSpecContainerSpec) {
        let added = container.capability_add.get_or_insert_default();
        let dropped = container.capability_drop.get_or_insert_default();
        for name in &self.cap_add {
            dropped.retain(|present| !is_same_capability(present, name));
            added.retain(|present| !is_same_capability(present, name));
            added.push(name.clone());
        }
        for name in &self.cap_drop {
            added.retain(|present| !is_same_capability(present, name));
            dropped.retain(|present| !is_same_capability(present, name));
            dropped.push(name.clone());
        }
        let privileges = container.privileges.get_or_insert_default();
        if let Some(filter) = self.seccomp {
            let mode = Some(SeccompMode::UNCONFINED).filter(|_| filter == Seccomp::Unconfined);
            privileges.seccomp =
                mode.map(|mode| TaskSpecContainerSpecPrivilegesSeccomp { mode: Some(mode), profile: None });
        }
        if let Some(kept) = self.no_new_privileges {
            privileges.no_new_privileges = Some(kept);
            let labels = container.labels.get_or_insert_default();
            labels.remove(NEW_PRIVILEGES);
            if !kept {
                labels.insert(NEW_PRIVILEGES.to_owned(), true.to_string());
            }
        }
    }
}

fn is_same_capability(one: &str, other: &str) -> bool {
    let plain = |name: &str| {
        let upper = name.to_ascii_uppercase();
        upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper)
    };
    plain(one) == plain(other)
}

impl HealthFlags {
    fn apply(&self, container: &mut TaskSpecContainerSpec) {
        let test: Option<Vec<String>> = match (&self.health_cmd, &self.health_http, self.health_tcp) {
            (Some(line), _, _) if line.is_empty() => Some(Vec::new()),
            (Some(line), _, _) => Some(vec!["CMD-SHELL".to_owned(), line.clone()]),
            (None, Some(Http(port, path)), _) => Some(vec!["HTTP".to_owned(), port.to_string(), path.clone()]),
            (None, None, Some(port)) => Some(vec!["TCP".to_owned(), port.to_string()]),
            (None, None, None) => self.no_healthcheck.then(|| vec!["NONE".to_owned()]),
        };
        let mut check = container.health_check.clone().unwrap_or_default();
        set(&mut check.test, test);
        set(&mut check.interval, self.health_interval.map(nanoseconds));
        set(&mut check.timeout, self.health_timeout.map(nanoseconds));
        set(&mut check.start_period, self.health_start_period.map(nanoseconds));
        set(&mut check.start_interval, self.health_start_interval.map(nanoseconds));
        set(&mut check.retries, self.health_retries);
        container.health_check = (check != HealthConfig::default()).then_some(check);
    }
}

/// Reads `8080/healthz`.
fn http(text: &str) -> Result<Http, String> {
    let (port, path) = text.split_once('/').unwrap_or((text, ""));
    let port: Option<u16> = port.parse().ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| format!("{text:?} is not a port and a path, expected one like 8080/healthz"))?;
    Ok(Http(port, format!("/{path}")))
}

impl LogFlags {
    fn apply(&self, task: &mut TaskSpec) -> anyhow::Result<()> {
        if self.log_driver.is_none() && self.log_opt.is_empty() {
            return Ok(());
        }
        if let Some(wrong) = self.log_opt.iter().find(|option| !option.contains('=')) {
            anyhow::bail!("--log-opt {wrong}: it has no value, write {wrong}=VALUE");
        }
        let driver = task.log_driver.get_or_insert_with(TaskSpecLogDriver::default);
        set(&mut driver.name, self.log_driver.clone());
        driver.name.get_or_insert_with(|| "json-file".to_owned());
        driver.options.get_or_insert_with(HashMap::new).extend(labels(&self.log_opt));
        Ok(())
    }
}

impl ResourceFlags {
    fn apply(&self, task: &mut TaskSpec) {
        let placement = task.placement.get_or_insert_default();
        set(&mut placement.max_replicas, self.replicas_max_per_node);
        let resources = task.resources.get_or_insert_default();
        let limits = resources.limits.get_or_insert_default();
        set(&mut limits.nano_cpus, self.limit_cpu);
        set(&mut limits.memory_bytes, self.limit_memory);
        set(&mut limits.pids, self.limit_pids);
        let reserved = resources.reservations.get_or_insert_default();
        set(&mut reserved.nano_cpus, self.reserve_cpu);
        set(&mut reserved.memory_bytes, self.reserve_memory);
    }
}

impl RestartFlags {
    fn apply(&self, task: &mut TaskSpec) {
        let policy = task.restart_policy.get_or_insert_default();
        let condition = self.restart_condition.map(|condition| match condition {
            Condition::None => TaskSpecRestartPolicyConditionEnum::NONE,
            Condition::OnFailure => TaskSpecRestartPolicyConditionEnum::ON_FAILURE,
            Condition::Any => TaskSpecRestartPolicyConditionEnum::ANY,
        });
        set(&mut policy.condition, condition);
        set(&mut policy.delay, self.restart_delay.map(nanoseconds));
        set(&mut policy.max_attempts, self.restart_max_attempts);
        set(&mut policy.window, self.restart_window.map(nanoseconds));
    }
}

/// Puts a value in place of the present one, if there is one.
fn set<T>(present: &mut Option<T>, given: Option<T>) {
    if given.is_some() {
        *present = given;
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        shared: SharedArgs,
    }

    fn applied(spec: &mut ServiceSpec, line: &str) {
        let line = Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace())).unwrap();
        line.shared.apply(spec).unwrap();
    }

    fn container(spec: &ServiceSpec) -> TaskSpecContainerSpec {
        spec.task_template.clone().unwrap().container_spec.unwrap()
    }

    #[test]
    fn only_what_was_given_changes_and_the_later_wins() {
        let mut spec = ServiceSpec::default();
        applied(&mut spec, "--init --tty --cap-add net_admin --cap-drop ALL --health-http 8080/ok --health-retries 2");
        applied(&mut spec, "--tty=false --cap-drop CAP_NET_ADMIN --health-interval 2s --limit-pids 7");
        let made = container(&spec);
        assert_eq!((made.init, made.tty), (Some(true), Some(false)));
        assert_eq!(made.capability_add, Some(vec![]));
        assert_eq!(made.capability_drop, Some(vec!["ALL".to_owned(), "CAP_NET_ADMIN".to_owned()]));
        let check = made.health_check.unwrap();
        assert_eq!(check.test.unwrap(), ["HTTP", "8080", "/ok"]);
        assert_eq!((check.interval, check.retries), (Some(2_000_000_000), Some(2)));
        applied(&mut spec, "--no-healthcheck --no-new-privileges=false --log-opt max-size=1m");
        let made = container(&spec);
        assert_eq!(made.health_check.unwrap().test.unwrap(), ["NONE"]);
        assert_eq!(made.labels.unwrap()[NEW_PRIVILEGES], "true");
        applied(&mut spec, "--no-new-privileges");
        assert!(container(&spec).labels.unwrap().is_empty());
        let log = spec.task_template.unwrap().log_driver.unwrap();
        assert_eq!((log.name.as_deref(), log.options.unwrap().len()), (Some("json-file"), 1));
    }

    #[test]
    fn checks_that_contradict_each_other_are_refused() {
        for line in
            ["--health-tcp 1 --health-http 1", "--health-cmd a --no-healthcheck", "--health-http /x", "--health-tcp 0"]
        {
            assert!(Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace())).is_err(), "{line}");
        }
    }
}
