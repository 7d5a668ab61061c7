//! What decides how a container runs: the order that the daemon gives and the shim carries out.
//!
//! Plain data, written to the bundle as `spec.json`. Every field but the id, the layers and the command may be left
//! out; what an older daemon did not write gets its default, so that its containers are adopted by a newer one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything that decides how a container runs. Fixed from `create` on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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
    /// Further groups of the user, each a name of the rootfs or a number.
    pub groups: Vec<String>,
    /// Host name inside. Empty: the first 12 characters of the id.
    pub hostname: String,
    /// Contents of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Lines of `/etc/hosts` beyond those for `localhost`.
    pub hosts: Vec<(IpAddr, String)>,
    /// Whether the container may not write to its root file system.
    pub readonly_rootfs: bool,
    /// Whether a small first process reaps orphans and hands signals on to the command (Docker's `--init`).
    pub init: bool,
    /// Whether the command gets a terminal; its output is then one stream, `stdout`.
    pub tty: bool,
    /// Whether standard input stays open for [`attach`](super::Runtime::attach); otherwise it is empty.
    pub stdin: bool,
    /// What is mounted into the root file system, in this order.
    pub mounts: Vec<Mount>,
    /// Size of `/dev/shm` in bytes. `None`: 64 MiB, as in Docker.
    pub shm_bytes: Option<u64>,
    /// Devices of the host that the container may use.
    pub devices: Vec<Device>,
    /// Kernel parameters of the container's own namespaces, for example `net.core.somaxconn`.
    pub sysctls: BTreeMap<String, String>,
    /// Limits of each process (setrlimit(2)); lowered to the daemon's own where those are lower.
    pub ulimits: Vec<Ulimit>,
    /// What the command may do and is kept from.
    pub privileges: Privileges,
    /// Ceilings held by the kernel.
    pub limits: Limits,
    /// How much output is kept.
    pub log: LogLimits,
    /// Parent cgroup, relative to the root of the hierarchy, for example `shoal/<node>`; distinct for each daemon on a host.
    pub cgroup_parent: String,
    /// Ends the container if its daemon is gone for too long. `None`: it outlives its daemon.
    pub lease: Option<Lease>,
}

/// How long a container goes on without its daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Absolute path of the file whose modification time the daemon changes every second.
    pub file: PathBuf,
    /// After so many milliseconds without a change the container is asked to end; those that the host slept count.
    pub timeout_ms: u64,
    /// By this signal.
    pub signal: i32,
    /// So many milliseconds later it is killed.
    pub grace_ms: u64,
}

/// Privileges beyond and below Docker's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Privileges {
    /// Capabilities added to the default set, as `NET_ADMIN` or `CAP_NET_ADMIN`; `ALL` means all that the host has.
    pub cap_add: Vec<String>,
    /// Capabilities taken away, in the same form; `ALL` means all but those of `cap_add`.
    pub cap_drop: Vec<String>,
    /// Whether set-uid programs may raise privileges. Off by default, unlike Docker's.
    pub new_privileges: bool,
    /// Whether to go without the system call filter.
    pub unfiltered: bool,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container; made if missing.
    pub target: String,
    /// Whether the container may not write to it.
    pub readonly: bool,
    /// What is mounted.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the host, with what is mounted below it. It must exist.
    Bind(PathBuf),
    /// A volume: a directory that the daemon keeps. If it is empty and `copy` is set, what the image has at the
    /// target is copied into it first, owners and modes included, as in Docker.
    Volume {
        /// The directory on the host. It must exist.
        directory: PathBuf,
        /// Whether an empty volume is filled from the image.
        copy: bool,
    },
    /// Memory, gone with the container.
    Tmpfs {
        /// Most bytes that fit in. `None`: half of the host's memory, and of the container's memory limit in any case.
        bytes_max: Option<u64>,
        /// Mode of its top directory. `None`: 1777, as in Docker.
        mode: Option<u32>,
    },
}

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Absolute path inside, below `/dev`.
    pub target: String,
    /// Any of `r`, `w` and `m` (mknod). Held by the kernel on cgroup v1 only.
    pub access: String,
}

/// A limit of each process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// As in Docker: `nofile`, `nproc`, `core`, …
    pub name: String,
    /// What is in force; `u64::MAX` means no limit.
    pub soft: u64,
    /// How far the process may raise it; `u64::MAX` means no limit.
    pub hard: u64,
}

/// Ceilings held by the kernel. `None` means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory in bytes, page cache included. Beyond it the kernel kills a process of the container.
    pub memory_bytes: Option<u64>,
    /// Processor time in billionths of one processor, as Docker counts. At least 10 000 000 (a hundredth).
    pub nano_cpus: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
    /// Whether to run without a ceiling that this host cannot hold, for want of a cgroup controller. Without it, such
    /// a container is refused.
    pub where_possible: bool,
}

/// How much output is kept on disk: the newest, in files that are put aside when they are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Size of one file in bytes, 4 KiB to 1 GiB. Default 10 MiB.
    pub file_bytes_max: u64,
    /// Files kept, the one being written included, 1 to 100. Default 2.
    pub files_max: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { file_bytes_max: 10 * 1024 * 1024, files_max: 2 }
    }
}

/// A further command in a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The command and its arguments, looked up as those of the container.
    pub args: Vec<String>,
    /// `NAME=value`, beyond the environment of the container's own command.
    pub env: Vec<String>,
    /// Absolute path inside. Empty: that of the container's command.
    pub cwd: String,
    /// As [`ContainerSpec::user`]. Empty: that of the container's command.
    pub user: String,
    /// Whether it gets a terminal; its output is then one stream.
    pub tty: bool,
    /// Whether it gets all capabilities that the host has, and no filter.
    pub privileged: bool,
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}
