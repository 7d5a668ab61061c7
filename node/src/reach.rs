//! Reach: logs, commands, counters and signals of tasks, on whichever node they run.
//!
//! Input: a node, a task and what is wanted of it. Output: an answer, a stream of log lines, or the session of a
//! command. This node's own tasks are reached through the runtime, those of others over `/shoal/task/1`, see
//! `docs/protocol.md#tasks-at-hand`; whoever asks sees no difference. Everything waits: whoever reads slowly slows
//! down who writes, across nodes.

mod frame;
mod local;
pub mod merge;
mod remote;
mod serve;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use shoal_cluster::{NodeId, TaskId};
use shoal_runtime::container::{ContainerProcess, ContainerSpec, ExecSpec, Exit, Stats, WindowSize};
use shoal_runtime::log::LogLine;
use tokio::sync::mpsc;

use crate::executor::health::Health;

pub use local::Local;
pub use remote::everywhere;
pub use serve::serve;

/// Tasks whose logs one node is asked for at once.
pub const LOG_TASKS_MAX: usize = 1_000;
/// Longest piece of a command's input or output that travels at once, in bytes.
pub const PIECE_BYTES_MAX: usize = 32 << 10;
/// Pieces and batches of lines that wait between two ends.
const WAITING_MAX: usize = 4;

/// Returns the tasks of a node.
pub type Reach = Arc<dyn Fn(NodeId) -> Arc<dyn Tasks> + Send + Sync>;

/// The tasks of one node.
pub trait Tasks: Send + Sync {
    /// Reads logs, merged by time. The stream ends when there is no more to come, and begins at once.
    fn logs(&self, ask: LogAsk) -> mpsc::Receiver<Said>;

    /// Runs a command in a task's container.
    fn exec(&self, ask: ExecAsk) -> BoxFuture<'static, Result<Session, ReachError>>;

    /// Joins the streams of a task's own process, from now on.
    fn attach(&self, ask: AttachAsk) -> BoxFuture<'static, Result<Session, ReachError>>;

    /// Asks something of one task.
    fn ask(&self, task: TaskId, question: Question) -> BoxFuture<'static, Result<Answer, ReachError>>;
}

/// Which lines of which logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAsk {
    /// Whose. At most [`LOG_TASKS_MAX`].
    pub tasks: Vec<TaskId>,
    /// Only the last so many of each.
    pub tail: Option<u64>,
    /// Only lines of this time or later, as [`shoal_runtime::log::rfc3339`] renders it.
    pub since: Option<String>,
    /// Only lines before this time.
    pub until: Option<String>,
    /// Whether to read standard output.
    pub stdout: bool,
    /// Whether to read standard error.
    pub stderr: bool,
    /// Whether to go on with what comes, until the tasks have ended.
    pub follow: bool,
}

/// A line and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLine {
    /// Whose.
    pub task: TaskId,
    /// The line.
    pub line: LogLine,
}

/// What comes from logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// Lines, in order of time until the first [`Said::Quiet`], and as they were written after it.
    Lines(Vec<TaskLine>),
    /// When following: all that was written before this time has been said.
    Quiet(String),
    /// There is no log of this task; the others go on.
    Missing(TaskId, ReachError),
    /// Nothing more comes, because of this.
    Failed(ReachError),
}

/// A command to run in a task's container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecAsk {
    /// In whose.
    pub task: TaskId,
    /// What and how.
    pub spec: ExecSpec,
    /// The size of its terminal, if it gets one.
    pub size: Option<WindowSize>,
}

/// Which streams of a task's own process to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachAsk {
    /// Whose.
    pub task: TaskId,
    /// Whether to write to its input, if it has one that is open. Its end is not told: the input stays open.
    pub stdin: bool,
}

/// A command that runs, or a task's own. Dropping both ends closes its streams and hangs up its terminal; the process is not killed.
#[derive(Debug)]
pub struct Session {
    /// Its process, as its node numbers it.
    pub pid: i32,
    /// What goes to it. Dropping it is [`Input::End`].
    pub input: mpsc::Sender<Input>,
    /// What comes from it; [`Output::Exit`] is the last. Without it, the node or the way to it was lost.
    pub output: mpsc::Receiver<Output>,
}

/// What goes to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// For its standard input.
    Piece(Bytes),
    /// Its standard input ends here.
    End,
    /// Its terminal has another size.
    Resize(WindowSize),
}

/// What comes from a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// From its standard output, or its terminal.
    Out(Bytes),
    /// From its standard error.
    Err(Bytes),
    /// Its exit status.
    Exit(i32),
}

/// What is asked of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// How its container was made and where it is in its life.
    Details,
    /// What it uses.
    Sample,
    /// Its processes.
    Processes,
    /// Signals its first process.
    Signal(i32),
    /// Asks it to end, kills it after a while, and waits for the end. `None`: as its service says.
    Stop {
        /// The signal that asks.
        signal: Option<i32>,
        /// How long it has, in milliseconds.
        grace_ms: Option<u64>,
    },
    /// Waits for its end.
    Wait,
    /// Sets the size of its terminal.
    Resize(WindowSize),
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Details`].
    Details(Box<Details>),
    /// To [`Question::Sample`].
    Sample(Box<Sample>),
    /// To [`Question::Processes`].
    Processes(Vec<ContainerProcess>),
    /// To [`Question::Signal`] and [`Question::Resize`].
    Done,
    /// To [`Question::Stop`] and [`Question::Wait`].
    Ended(Exit),
}

/// What a node knows of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// What it was made from. Its layers and our own labels are left out.
    pub spec: ContainerSpec,
    /// Its first process, while there is one.
    pub pid: Option<i32>,
    /// When its command was executed, in milliseconds since the Unix epoch; 0 if it was not yet.
    pub started_at_ms: u64,
    /// How it ended, once it has.
    pub exit: Option<Exit>,
    /// How it is, if it has a health check.
    pub health: Option<Health>,
}

/// What a container uses, and what its machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its counters.
    pub stats: Stats,
    /// Processor time of the whole machine since its start, idle time included, in nanoseconds.
    pub machine_cpu_ns: u64,
    /// Processors of the machine.
    pub cpus: u32,
    /// Memory of the machine in bytes.
    pub memory_bytes: u64,
}

/// Why a task could not be reached, or did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ReachError {
    /// Its node has no container of it: it was not made yet, or is removed.
    #[error("task {0} has no container: it has not been started yet, or is removed already")]
    Missing(TaskId),
    /// Its container does not run.
    #[error("container {0} is not running")]
    NotRunning(TaskId),
    /// The container or its shim refused. The text is for operators.
    #[error("{0}")]
    Refused(String),
    /// The command could not be run, with the exit status that says so.
    #[error("{message}")]
    NotRun {
        /// 127 if it is not there, 126 if it may not be executed, else 125.
        exit_code: i32,
        /// For operators.
        message: String,
    },
    /// Its node serves as many requests as it can.
    #[error("its node serves too many requests of this kind at the moment: try again")]
    Busy,
    /// Its node cannot be reached, or the connection broke. The text says why.
    #[error("its node cannot be reached: {0}")]
    Unreachable(String),
}
