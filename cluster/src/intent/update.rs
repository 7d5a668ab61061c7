//! Updates: how a service's slots move to another revision, and how far a rollout has come.
//!
//! Input: what operators write. Output: plain values; `crate::plan::rollout` decides what follows from them. See
//! `docs/protocol.md#rollout`.

use serde::{Deserialize, Serialize};

use super::history::Ended;
use crate::id::{RolloutId, ServiceId, TaskId};

/// How slots move to another revision. Docker's words and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// How many slots may be on their way at once; 0 is no bound. Default 1.
    pub parallelism: u32,
    /// How long a task must have run, beyond `monitor_ms`, before the next slot moves in its place. Default 0.
    pub delay_ms: u64,
    /// How long a moved task is watched: if it ends by itself within this time, the move has failed. Default 5 s.
    pub monitor_ms: u64,
    /// What follows when too many moves have failed.
    pub failure_action: FailureAction,
    /// How many of the slots may fail before that, in millionths of all. Default 0: none.
    pub failure_ratio_max_ppm: u32,
    /// Whether the old task ends before the new one starts.
    pub order: UpdateOrder,
}

/// What follows when too many moves of a rollout have failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FailureAction {
    /// No more slots move until an operator says so.
    #[default]
    Pause,
    /// Nothing; the others move too.
    Continue,
    /// The slots move back to the last revision that was rolled out to its end.
    Rollback,
}

/// Which of the two tasks of a slot that moves goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UpdateOrder {
    /// The old one ends, then the new one starts.
    #[default]
    StopFirst,
    /// The new one starts beside the old one, which ends once the new one has run for the monitor time.
    StartFirst,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay_ms: 0,
            monitor_ms: 5_000,
            failure_action: FailureAction::Pause,
            failure_ratio_max_ppm: 0,
            order: UpdateOrder::StopFirst,
        }
    }
}

impl UpdateConfig {
    /// Tells whether every number is one that makes sense.
    pub fn is_bounded(&self) -> bool {
        self.delay_ms <= DELAY_MS_MAX && self.monitor_ms <= DELAY_MS_MAX && self.failure_ratio_max_ppm <= 1_000_000
    }
}

/// Longest delay and monitor time: 30 days.
pub const DELAY_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;

/// One rollout: what a write began that changed what the tasks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Names it; no two writes begin the same.
    pub id: RolloutId,
    /// When it was begun, in milliseconds since the Unix epoch by its author's clock.
    pub started_ms: u64,
    /// Whether an operator asked for an earlier revision: it moves by [`rollback`](super::service::ServiceSpec::rollback) then.
    pub backward: bool,
}

/// How far a rollout has come. Nodes raise it from what they see; of two the greater counts, so that all agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Slots move, one after the other.
    #[default]
    Progressing,
    /// All have moved. What fails from now on fails for other reasons.
    Completed,
    /// Too many moves failed; the others wait for an operator.
    Paused,
    /// Too many moves failed; the slots move back.
    RolledBack,
    /// All have moved back.
    RollbackCompleted,
    /// Too many moves back failed too; the others wait for an operator.
    RollbackPaused,
}

impl Verdict {
    /// Tells whether slots still move, so that a later verdict may follow.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Progressing | Self::RolledBack)
    }

    /// Tells whether the slots run, or are to run, what they ran before.
    pub fn is_back(self) -> bool {
        matches!(self, Self::RolledBack | Self::RollbackCompleted | Self::RollbackPaused)
    }

    /// Tells how a revision ended on which this was said last, as history keeps it.
    pub fn ended(self) -> Ended {
        match self {
            Self::Progressing => Ended::Replaced,
            Self::Completed => Ended::Completed,
            Self::Paused => Ended::Paused,
            Self::RolledBack | Self::RollbackCompleted | Self::RollbackPaused => Ended::RolledBack,
        }
    }
}

/// A verdict with what led to it: the value of a register of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ruling {
    /// Of which service.
    pub service: ServiceId,
    /// On which rollout of it.
    pub rollout: RolloutId,
    /// The verdict.
    pub verdict: Verdict,
    /// One of the tasks whose failure led to it.
    pub task: Option<TaskId>,
}
