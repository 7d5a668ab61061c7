//! Tasks as their nodes report them.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::id::{ServiceId, TaskId};
use crate::plan::addresses::Addresses;

/// One task as the node that runs it reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Names it.
    pub id: TaskId,
    /// Whose it is.
    pub service: ServiceId,
    /// Which replica it is, from 1.
    pub slot: u32,
    /// Which revision of the service's task spec it runs.
    pub revision: u64,
    /// Its addresses; meaningful while it is not final.
    pub addresses: Addresses,
    /// How far it has come.
    pub state: TaskState,
    /// Whether it has run for as long as its rollout wants before the next slot may move; never taken back.
    pub stable: bool,
    /// Whether it ended for good: its restart policy wants no other in its slot, as long as that stays on this node.
    pub over: bool,
    /// When it came into this state, in milliseconds since the Unix epoch by its node's clock.
    pub since_ms: u64,
    /// Why it failed, in words for operators; empty otherwise.
    pub error: String,
    /// The exit code, once it has exited.
    pub exit_code: Option<i32>,
}

/// How far a task has come; it only moves forward, so states merge by `max`. Docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// The node has accepted it and waits, for instance for a restart delay.
    Accepted,
    /// The image is fetched and unpacked.
    Preparing,
    /// The container is made and started.
    Starting,
    /// It runs.
    Running,
    /// It was asked to end and has not ended yet: it has left names and balancing.
    Stopping,
    /// It ended by itself with exit code 0.
    Complete,
    /// It ended with another exit code or a signal, or did not start.
    Failed,
    /// It was ended because the plan no longer wants it here.
    Shutdown,
}

impl TaskState {
    /// Tells whether nothing of it runs any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Shutdown)
    }
}
