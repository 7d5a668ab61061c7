//! Containers: one task's process, isolated from its host and from the other tasks.
//!
//! Input: a [`ContainerSpec`] (unpacked layers and what to run on them). Output: a running process, its log, and the
//! truth about its end, an [`Exit`]. The daemon's half is [`Runtime`]: it starts one small single-threaded *shim*
//! process per container ([`shim_main`]), which calls `libcontainer`, holds the mounts and waits for the process.
//! A shim outlives the daemon; the next [`Runtime::open`] adopts it. See `docs/architecture.md`.

mod bundle;
mod cgroup;
mod init;
mod network;
mod oci;
mod protocol;
mod rootfs;
mod runtime;
mod seccomp;
mod shim;
mod user;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use runtime::{Runtime, ShimCommand};
pub use shim::shim_main;

/// Everything that decides how a container runs. Fixed from `create` on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Name of the container on this node: 1 to 64 of `a-z A-Z 0-9 _ . -`, not starting with a dot.
    pub id: String,
    /// Whatever the daemon wants to find again after a restart. The runtime does not read it.
    pub labels: BTreeMap<String, String>,
    /// Unpacked layers, bottom to top, 1 to 500 absolute paths. They are never written to.
    pub layers: Vec<PathBuf>,
    /// The command and its arguments. The command is looked up in `PATH` unless it holds a slash.
    pub args: Vec<String>,
    /// `NAME=value`, the later of two equal names wins. `PATH`, `HOME` and `HOSTNAME` get defaults.
    pub env: Vec<String>,
    /// Absolute path inside the container, made if missing. Empty: `/`.
    pub cwd: String,
    /// As in an image: empty (root), `uid`, `uid:gid`, `name` or `name:group`; names are those of the rootfs.
    pub user: String,
    /// Host name inside. Empty: the first 12 characters of the id.
    pub hostname: String,
    /// Contents of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Lines of `/etc/hosts` beyond those for `localhost`.
    pub hosts: Vec<(IpAddr, String)>,
    /// Whether the container may not write to its root file system.
    pub readonly_rootfs: bool,
    /// Ceilings held by the kernel.
    pub limits: Limits,
    /// Parent cgroup, relative to the root of the hierarchy, for example `shoal/<node>`; distinct for each daemon on a host.
    pub cgroup_parent: String,
}

/// Ceilings held by the kernel. `None` means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes, page cache included. Beyond it the kernel kills a process of the container.
    pub memory_bytes: Option<u64>,
    /// Processor time in billionths of one processor, as Docker counts. At least 10 000 000 (a hundredth).
    pub nano_cpus: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
}

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
            Self::User | Self::Rootfs | Self::Host => 125,
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
