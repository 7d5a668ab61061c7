//! What goes into the core and what comes out of it: plain values that can be compared, recorded and replayed.

mod command;

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

pub use command::{Command, CommandError, NewObject, Receipt};

use crate::id::{NodeId, ServiceId, TaskId};
use crate::intent::name::Name;
use crate::intent::service::TaskSpec;
use crate::plan::addresses::Addresses;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A message came from a peer whose identity the transport has proven; its bytes are hostile.
    Received {
        /// The peer.
        from: NodeId,
        /// Its bytes.
        message: Vec<u8>,
    },
    /// A connection to this peer has passed its first hello.
    PeerConnected(NodeId),
    /// The last connection to this peer was closed or reset, or a redial was refused: evidence against it.
    PeerLost(NodeId),
    /// Something happened to a task of this node.
    Task(TaskEvent),
    /// The images that this node can run, complete: `reference@digest` for each name, `digest` for those without.
    Images(BTreeSet<String>),
    /// A deadline passed (see [`crate::Cluster::poll_timeout`]); early or twice is harmless.
    Timeout,
}

/// What to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "plain values, moved once or twice; a box would show at every use")]
pub enum Action {
    /// Make this record durable before anything later leaves.
    Persist(Vec<u8>),
    /// Send these bytes to a peer, best effort: it may be lost, doubled or reordered.
    Send {
        /// To whom.
        to: NodeId,
        /// At most [`crate::limits::MESSAGE_BYTES_MAX`].
        message: Vec<u8>,
    },
    /// Do something with a container of this node.
    Task(TaskCommand),
    /// Tell operators.
    Notify(Event),
}

/// How long a task that others stand in for goes on after it has left names: as long as an answer of the DNS server may be
/// kept (1 s), and some for the news to get around.
pub const DRAIN: Duration = Duration::from_millis(1_500);

/// What the agent wants of the executor. Idempotent: doing it twice is harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "plain values, moved once or twice; a box would show at every use")]
pub enum TaskCommand {
    /// Fetch the image, make the container, plug it in, start it; answer with [`TaskEvent`]s.
    Start(TaskOrder),
    /// Ask it to end, then make it; answer with [`TaskEvent::Ended`].
    Stop(TaskId),
    /// The same after [`DRAIN`]: it is in no names any more, but clients may have been told of it just before.
    Drain(TaskId),
    /// Forget what is left of an ended task, its logs included.
    Remove(TaskId),
}

/// All that is needed to run one task; kept with the container so that a restarted node knows its tasks again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOrder {
    /// Names it.
    pub id: TaskId,
    /// Whose it is.
    pub service: ServiceId,
    /// The service's name.
    pub service_name: Name,
    /// Which replica it is, from 1.
    pub slot: u32,
    /// Which revision of the service it runs.
    pub revision: u64,
    /// Its overlay addresses.
    pub addresses: Addresses,
    /// Whether it is of a fenced service, so that it must end soon after this node's daemon.
    #[serde(default)]
    pub fenced: bool,
    /// What it runs.
    pub spec: TaskSpec,
}

/// What became of a task of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEvent {
    /// The containers that were found when the node started, complete: those of them that still run.
    /// The agent starts nothing before it has heard this once.
    Recovered {
        /// Those that count as running.
        running: Vec<TaskOrder>,
        /// Those whose health check was never passed.
        starting: Vec<TaskOrder>,
    },
    /// The image is there and the container is being made.
    Starting(TaskId),
    /// The process runs and, if the task has a health check, has been found healthy.
    Running(TaskId),
    /// Its health check has failed too often: the executor ends it, which counts as a failure.
    Unhealthy(TaskId),
    /// Nothing of it runs any more.
    Ended {
        /// Which.
        id: TaskId,
        /// The exit code; absent if it never started or was ended by a signal.
        exit_code: Option<i32>,
        /// Why, in words for operators; empty after a plain exit.
        error: String,
    },
}

/// What operators may want to know: a log line and a counter each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node is up that was not known or not up.
    NodeUp(NodeId),
    /// A node missed probes.
    NodeSuspect(NodeId),
    /// A node was declared down.
    NodeDown(NodeId),
    /// A node said goodbye.
    NodeLeft(NodeId),
    /// This node was suspected and has refuted with this incarnation.
    Refuted(u64),
    /// A peer's message was dropped, with the reason.
    MessageDropped {
        /// Who sent it.
        from: NodeId,
        /// Why it was dropped.
        reason: &'static str,
    },
    /// This node's IPv4 block went to another node that claimed it too; it takes another.
    BlockLost {
        /// Who holds it.
        to: NodeId,
    },
    /// A task failed; the next start in its slot waits this long, in milliseconds.
    TaskFailed {
        /// Which.
        id: TaskId,
        /// The delay; absent if no other start follows.
        retry_ms: Option<u64>,
    },
    /// This node has caught up with the others, or given up waiting, and begins to act.
    Settled,
}
