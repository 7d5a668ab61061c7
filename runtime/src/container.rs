//! Containers: one task's process, isolated from its host and from the other tasks.
//!
//! Input: a [`ContainerSpec`] (unpacked layers and what to run on them). Output: a running process, its log, and the
//! truth about its end, an [`Exit`]. The daemon's half is [`Runtime`]: it starts one small single-threaded *shim*
//! process per container ([`shim_main`]), which calls `libcontainer`, holds the mounts and waits for the process.
//! A shim outlives the daemon; the next [`Runtime::open`] adopts it. See `docs/architecture.md`.

mod bundle;
mod capabilities;
mod cgroup;
mod console;
mod copy_up;
mod driver;
mod init;
mod network;
mod oci;
mod protocol;
mod reaper;
mod report;
mod rootfs;
mod runtime;
mod seccomp;
mod shim;
mod spec;
mod stats;
mod user;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use runtime::{Exec, ExecEnd, ExecExit, ExecOutput, ExecTerminal, LogStream, Runtime, ShimCommand};
pub use shim::shim_main;
pub use spec::{
    ContainerSpec, Device, ExecSpec, Lease, Limits, LogLimits, Mount, MountSource, Privileges, Ulimit, WindowSize,
};
pub use stats::{BlockStats, ContainerProcess, NetworkStats, Stats};

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit status; 128 + the number for a signal; 125, 126 or 127 if the command never ran, as in Docker.
    pub code: i32,
    /// The signal that ended the process, if one did.
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of this container for want of memory.
    pub oom: bool,
    /// Why the command never ran, or why nothing better is known about its end.
    pub error: Option<String>,
    /// Milliseconds since the Unix epoch, by the host's clock.
    pub finished_at_ms: u64,
    /// Milliseconds since the Unix epoch, or 0 if the container was never started.
    pub started_at_ms: u64,
}

/// A created container: its namespaces exist, its command does not run yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// The first process, as seen from the daemon; `/proc/<pid>/ns/net` is the container's network. `lo` is up.
    pub pid: i32,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Entered by `create`, left by `start` or a kill.
    Created {
        /// As [`Created::pid`].
        pid: i32,
    },
    /// Entered by `start`, left when the first process ends.
    Running {
        /// As [`Created::pid`].
        pid: i32,
    },
    /// Entered when the first process has ended, its mounts and cgroup are gone and the shim has left.
    Exited(Exit),
}

/// One line of [`Runtime::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// As given at `create`.
    pub id: String,
    /// As given at `create`.
    pub labels: BTreeMap<String, String>,
    /// Now.
    pub state: ContainerState,
    /// Milliseconds since the Unix epoch, or 0 if the container was never started.
    pub started_at_ms: u64,
}

/// What kept a container from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// No such executable in the image, or its interpreter is missing.
    CommandNotFound,
    /// It exists, but may not or cannot be executed.
    CommandNotExecutable,
    /// The user or group is not in the image.
    User,
    /// The working directory cannot be entered.
    WorkingDirectory,
    /// The layers cannot be mounted, or files in `/etc` cannot be written.
    Rootfs,
    /// The kernel refused a namespace, a limit or a mount.
    Host,
    /// The source of a mount, a volume's directory or a device is missing or cannot be used.
    Mount,
}

/// Why `create` or `start` failed. Nothing is left of the container after a failed `create`; after a failed `start`
/// it is exited, with the same message as its error.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The spec breaks a rule of [`ContainerSpec`]. Nothing was made.
    #[error("invalid container: {0}")]
    Invalid(String),
    /// The id is taken. The other container is unchanged.
    #[error("container {0} exists already; remove it first")]
    Exists(String),
    /// No such container.
    #[error("no container {0}")]
    Missing(String),
    /// The container has been started before, or has ended.
    #[error("container {0} cannot be started: it runs or has ended")]
    NotCreated(String),
    /// A further command was asked for in a container that does not run.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// The container could not run; the message is for the operator.
    #[error("{message}")]
    Failed {
        /// The class of the failure.
        kind: FailureKind,
        /// What, and where known why.
        message: String,
    },
    /// The shim ended or fell silent without giving a reason.
    #[error("the container's shim {0}")]
    Shim(String),
    /// A file or process of the daemon's own side failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// Returns the exit code that Docker reports for such a failure: 127, 126 or 125.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Failed { kind, .. } => kind.exit_code(),
            Self::Invalid(_)
            | Self::Exists(_)
            | Self::Missing(_)
            | Self::NotCreated(_)
            | Self::NotRunning(_)
            | Self::Shim(_)
            | Self::Io { .. } => 125,
        }
    }
}

impl FailureKind {
    /// Returns the exit code that Docker reports for such a failure.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        match self {
            Self::CommandNotFound => 127,
            Self::CommandNotExecutable | Self::WorkingDirectory => 126,
            Self::User | Self::Rootfs | Self::Host | Self::Mount => 125,
        }
    }
}

/// Why another operation of [`Runtime`] failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Another process has this state directory open. Nothing was touched.
    #[error("the state directory {0} is in use by another process; stop it or choose another data directory")]
    InUse(PathBuf),
    /// No such container.
    #[error("no container {0}")]
    Missing(String),
    /// The shim refused or did not answer. The container is as it was.
    #[error("the shim of container {id} {reason}")]
    Shim {
        /// The container.
        id: String,
        /// What it did instead of obeying.
        reason: String,
    },
    /// A file or process of the daemon's own side failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}
