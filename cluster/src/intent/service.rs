//! Services: what operators declare.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use self::network::{Attachment, Endpoint};
use super::constraint::{Constraint, Spread};
use super::history::{Kept, Packed};
use super::name::Name;
use super::update::{FailureAction, Rollout, UpdateConfig};
use crate::id::{NodeId, ServiceId};
use crate::limits::{CONSTRAINTS_MAX, REPLICAS_MAX, VALUE_BYTES_MAX};

pub mod container;
mod digest;
pub mod file;
pub mod health;
pub mod network;
mod task;

pub use task::{ImageRef, RESTART_DELAY_MAX, Resources, RestartCondition, RestartPolicy, TaskSpec};

/// The label that says what becomes of a service on the lesser side of a split.
pub const PARTITION_LABEL: &str = "shoal.partition";
/// Its value for services of which each side runs all tasks, as without the label.
const AVAILABLE: &str = "available";
/// Its value for services that run with the majority of the members only.
const FENCED: &str = "fenced";

/// One declared service, as the intent plane keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Packed", into = "Packed")]
pub struct Service {
    /// Names it for its whole life.
    pub id: ServiceId,
    /// Grows with each accepted write; an update must name the one it was made from (Docker's `Version.Index`).
    pub version: u64,
    /// Names [`ServiceSpec::task`] by its content ([`TaskSpec::revision`]): tasks of another revision are replaced.
    /// Not a count: two halves of a split shoal would count alike and mean different specs.
    pub revision: u64,
    /// When it was created, in milliseconds since the Unix epoch by its author's clock.
    pub created_ms: u64,
    /// When it was last written, likewise.
    pub updated_ms: u64,
    /// The node on which it was last written.
    pub author: NodeId,
    /// What moves its slots to the present revision; absent if they never ran another.
    pub rollout: Option<Rollout>,
    /// What it was before, the newest first; bounded in number and bytes.
    pub history: Vec<Kept>,
    /// What the operator wrote.
    pub spec: ServiceSpec,
}

/// What an operator writes to declare a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Unique in the shoal; also its DNS name.
    pub name: Name,
    /// The operator's own labels on the service.
    pub labels: BTreeMap<String, String>,
    /// Whether there are so many tasks, or one on every node that may run it.
    pub mode: Mode,
    /// How many tasks should run, 0 to [`REPLICAS_MAX`]; of no account if the service is global.
    pub replicas: u32,
    /// What each task reserves on its node, used or not. Not part of the revision: to reserve more restarts nothing.
    pub reserved: Reserved,
    /// Which nodes may run the tasks, and how they are spread.
    pub placement: PlacementSpec,
    /// The networks that it is on; the built-in one if there are none. Not part of the revision.
    pub networks: Vec<Attachment>,
    /// How it is reached. Not part of the revision.
    pub endpoint: Endpoint,
    /// How the slots move to another revision.
    pub update: UpdateConfig,
    /// How they move back.
    pub rollback: UpdateConfig,
    /// What each task runs.
    pub task: TaskSpec,
}

/// How many tasks a service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// As many as [`ServiceSpec::replicas`] says.
    #[default]
    Replicated,
    /// One on every node that may run it.
    Global,
    /// Until so many as [`ServiceSpec::replicas`] says have ended with exit code 0.
    ReplicatedJob {
        /// How many run at once, at most; 1 or more.
        concurrent: u32,
    },
    /// One on every node that may run it, until it ends with exit code 0.
    GlobalJob,
}

impl Mode {
    /// Tells whether the slots stand for nodes.
    pub fn is_global(self) -> bool {
        matches!(self, Self::Global | Self::GlobalJob)
    }

    /// Tells whether tasks are to end.
    pub fn is_job(self) -> bool {
        matches!(self, Self::ReplicatedJob { .. } | Self::GlobalJob)
    }
}

/// What a task reserves; 0 is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// Billionths of a CPU.
    pub nano_cpus: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// Where the tasks of a service may run. See `docs/design/0010-placement.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementSpec {
    /// What a node must be; all of them.
    pub constraints: Vec<Constraint>,
    /// Over which labels the tasks are spread, the most important first.
    pub spread: Vec<Spread>,
    /// How many of the tasks one node may run; 0 is no bound.
    pub replicas_per_node_max: u32,
    /// Systems and architectures that the image is for, such as `linux` and `amd64`, either may be empty; any if there
    /// are none.
    pub platforms: Vec<(String, String)>,
}

impl ServiceSpec {
    /// Returns the spec of a service of so many tasks that asks nothing of its nodes.
    pub fn new(name: Name, replicas: u32, task: TaskSpec) -> Self {
        Self {
            name,
            labels: BTreeMap::new(),
            mode: Mode::Replicated,
            replicas,
            reserved: Reserved::default(),
            placement: PlacementSpec::default(),
            networks: Vec::new(),
            endpoint: Endpoint::default(),
            update: UpdateConfig::default(),
            rollback: UpdateConfig::default(),
            task,
        }
    }

    /// Tells whether the service may have a slot of this number. A global service's slots have the numbers of nodes;
    /// those of a job are counted from 0, as Docker does.
    pub fn has_slot(&self, slot: u32) -> bool {
        match self.mode {
            Mode::Replicated => (1..=self.replicas).contains(&slot),
            Mode::ReplicatedJob { .. } => slot < self.replicas,
            Mode::Global | Mode::GlobalJob => slot > 0,
        }
    }

    /// Returns how many slots are to have tasks at once, if the service is not global: all, or the lanes of a job.
    pub fn lanes(&self) -> u32 {
        match self.mode {
            Mode::ReplicatedJob { concurrent } => concurrent.min(self.replicas),
            Mode::Replicated | Mode::Global | Mode::GlobalJob => self.replicas,
        }
    }

    /// Tells whether the service's tasks run only where the majority of the members is, and no slot on two sides of a split.
    /// See `docs/design/0032-fenced-services.md`.
    pub fn is_fenced(&self) -> bool {
        self.labels.get(PARTITION_LABEL).is_some_and(|value| value == FENCED)
    }

    /// Checks what types cannot: replicas within bounds, and an encoding that one entry can hold.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.replicas > REPLICAS_MAX {
            return Err(SpecError::Replicas { replicas: self.replicas });
        }
        if let Some(value) =
            self.labels.get(PARTITION_LABEL).filter(|value| ![AVAILABLE, FENCED].contains(&value.as_str()))
        {
            return Err(SpecError::Partition { value: value.clone() });
        }
        self.task.check()?;
        if self.mode == (Mode::ReplicatedJob { concurrent: 0 }) {
            return Err(SpecError::NoneAtOnce);
        }
        if self.mode.is_job() && self.task.restart.condition == RestartCondition::Any {
            return Err(SpecError::JobWithoutEnd);
        }
        let placement = &self.placement;
        for count in [placement.constraints.len(), placement.spread.len(), placement.platforms.len()] {
            if count > CONSTRAINTS_MAX {
                return Err(SpecError::TooManyConstraints { count });
            }
        }
        if !self.update.is_bounded() || !self.rollback.is_bounded() {
            return Err(SpecError::Update);
        }
        if self.rollback.failure_action == FailureAction::Rollback {
            return Err(SpecError::RollbackOfRollback);
        }
        network::check(&self.networks, &self.endpoint)?;
        let bytes = self.weight();
        if bytes > VALUE_BYTES_MAX / 2 {
            return Err(SpecError::TooLarge { bytes });
        }
        Ok(())
    }

    /// Returns an upper bound of the bytes of text in the spec.
    fn weight(&self) -> usize {
        let labels = self.labels.iter().map(|(key, value)| key.len() + value.len() + 16);
        let constraints = self.placement.constraints.iter().map(|one| one.to_string().len());
        let platforms = self.placement.platforms.iter().map(|(os, architecture)| os.len() + architecture.len() + 4);
        labels.sum::<usize>()
            + constraints.sum::<usize>()
            + self.placement.spread.iter().map(|one| one.attribute().to_string().len()).sum::<usize>()
            + platforms.sum::<usize>()
            + network::weight(&self.networks, &self.endpoint)
            + self.task.weight()
    }
}

/// A service spec cannot be accepted. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// More replicas than a service may have.
    #[error("{replicas} replicas are too many: a service may have at most {REPLICAS_MAX}")]
    Replicas {
        /// What was asked for.
        replicas: u32,
    },
    /// A label that says what no shoal knows.
    #[error("label {PARTITION_LABEL} is {value:?}: it may be \"available\" (the default) or \"fenced\"")]
    Partition {
        /// What it says.
        value: String,
    },
    /// More constraints, preferences or platforms than a service may have.
    #[error(
        "{count} constraints, preferences or platforms are too many: a service may have at most {CONSTRAINTS_MAX} of each"
    )]
    TooManyConstraints {
        /// What was asked for.
        count: usize,
    },
    /// A delay, monitor time or failure ratio out of bounds.
    #[error("a delay or monitor time is longer than 30 days, or a failure ratio is not between 0 and 1")]
    Update,
    /// A rollback that would be rolled back.
    #[error("a rollback that fails can be paused or continued, not rolled back")]
    RollbackOfRollback,
    /// A job of which no task may run.
    #[error("no task of the job may run: let at least one run at once")]
    NoneAtOnce,
    /// A job that would be started again after it did its work.
    #[error("a job's tasks end when they have done their work: restart them on-failure, or never (none)")]
    JobWithoutEnd,
    /// No image was named.
    #[error("the service names no image")]
    NoImage,
    /// One of the container's options is impossible.
    #[error("invalid {what}: {reason}")]
    Option {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The spec does not fit into one entry.
    #[error("the spec has {bytes} bytes, more than the {} allowed: shorten its arguments, environment or labels", VALUE_BYTES_MAX / 2)]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}
