//! Tasks: what one task of a service runs, and when another follows it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::SpecError;
use super::container::ContainerOptions;
use super::health::HealthCheck;
use crate::hash;
use crate::wire;

/// What one task of a service runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The image.
    pub image: ImageRef,
    /// Replaces the image's entrypoint, unless empty.
    pub command: Vec<String>,
    /// Replaces the image's command, unless empty (or unless `command` is given).
    pub args: Vec<String>,
    /// `NAME=value`, added to the image's.
    pub env: Vec<String>,
    /// The container's labels.
    pub labels: BTreeMap<String, String>,
    /// Working directory; the image's unless given.
    pub workdir: Option<String>,
    /// User, `name|uid[:group|gid]`; the image's unless given.
    pub user: Option<String>,
    /// Host name; the task's id cut to 12 characters unless given, as Docker has it.
    pub hostname: Option<String>,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Signal that asks the task to end, by name; the image's or SIGTERM unless given.
    pub stop_signal: Option<String>,
    /// Time between that signal and SIGKILL, in milliseconds. Default 10 s, as Docker's.
    pub stop_grace_ms: u64,
    /// What its container gets beyond that.
    #[serde(default)]
    pub container: ContainerOptions,
    /// How it is checked; as the image says unless given.
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// What the task may use at most.
    pub limits: Resources,
    /// When a task that ended is followed by another.
    pub restart: RestartPolicy,
    /// Raised by `service update --force`: a new revision though nothing else changed.
    pub force_update: u64,
}

/// An image by name and, once pinned, by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// As the operator wrote it, such as `web:latest`.
    pub reference: String,
    /// `sha256:…` of its manifest: all nodes run the same bytes even if the tag moves. Absent only while unknown.
    #[serde(with = "super::digest")]
    pub digest: Option<String>,
}

/// Amounts of CPU, memory and processes; absent means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Billionths of a CPU.
    pub nano_cpus: Option<u64>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
}

/// When a task that ended is followed by another in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// After which ends.
    pub condition: RestartCondition,
    /// Time before the first restart, in milliseconds; doubles with each failure in a row, up to [`RESTART_DELAY_MAX`].
    pub delay_ms: u64,
    /// Restarts in a row, or within `window_ms`, before the slot is given up; absent means no bound.
    pub attempts_max: Option<u64>,
    /// Of how long ago restarts count towards `attempts_max`, in milliseconds; absent means those in a row.
    #[serde(default)]
    pub window_ms: Option<u64>,
}

/// Longest time between two starts in a slot whose tasks keep failing.
pub const RESTART_DELAY_MAX: Duration = Duration::from_secs(60);

/// Restarts that can be counted within a window.
const ATTEMPTS_IN_WINDOW_MAX: u64 = 1_000;

/// After which ends of a task another is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartCondition {
    /// Never.
    None,
    /// After a failure: a non-zero exit, a signal, or a start that failed.
    OnFailure,
    /// After any end.
    Any,
}

impl Default for RestartPolicy {
    /// Any end, one second apart at first, without a bound.
    fn default() -> Self {
        Self { condition: RestartCondition::Any, delay_ms: 1_000, attempts_max: None, window_ms: None }
    }
}

impl TaskSpec {
    /// Returns the spec of a task that runs `image` as the image says.
    pub fn new(image: ImageRef) -> Self {
        Self {
            image,
            command: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            labels: BTreeMap::new(),
            workdir: None,
            user: None,
            hostname: None,
            read_only: false,
            stop_signal: None,
            stop_grace_ms: 10_000,
            container: ContainerOptions::default(),
            health: None,
            limits: Resources::default(),
            restart: RestartPolicy::default(),
            force_update: 0,
        }
    }

    /// Returns the number that stands for this very spec: a hash of its encoding.
    pub fn revision(&self) -> u64 {
        hash::rank64("revision", &[&wire::encode(self)])
    }

    /// Checks what types cannot.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        if self.image.reference.is_empty() {
            return Err(SpecError::NoImage);
        }
        let many = self.restart.attempts_max.is_some_and(|most| most > ATTEMPTS_IN_WINDOW_MAX);
        if self.restart.window_ms.is_some() && many {
            let reason = format!("with a window, at most {ATTEMPTS_IN_WINDOW_MAX} attempts can be counted");
            return Err(SpecError::Option { what: "restart policy", reason });
        }
        self.container.check()?;
        self.health.as_ref().map_or(Ok(()), HealthCheck::check)
    }

    /// Returns an upper bound of the bytes of text in it.
    pub(super) fn weight(&self) -> usize {
        let list = |list: &[String]| list.iter().map(|item| item.len() + 8).sum::<usize>();
        let options = [&self.workdir, &self.user, &self.hostname, &self.stop_signal, &self.image.digest];
        self.labels.iter().map(|(key, value)| key.len() + value.len() + 16).sum::<usize>()
            + list(&self.command)
            + list(&self.args)
            + list(&self.env)
            + self.image.reference.len()
            + options.iter().filter_map(|option| option.as_ref()).map(String::len).sum::<usize>()
            + self.container.weight()
            + self.health.as_ref().map_or(0, HealthCheck::weight)
    }
}
