//! The OCI runtime spec (`config.json`) of a container: Docker's defaults, narrowed where the host allows less.
//!
//! Input: a [`ContainerSpec`] and what the shim found out (user, devices, limits and capabilities of its own). Output:
//! JSON. Stricter than Docker's default: no `CAP_MKNOD` and no-new-privileges, unless asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::user::User;
use super::{ContainerSpec, ExecSpec, Limits, Mount, MountSource, Ulimit, WindowSize, bundle, capabilities, seccomp};

/// Docker's `PATH` for images that set none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Docker's `TERM` for a container with a terminal.
const DEFAULT_TERM: &str = "TERM=xterm";

/// Docker's size of `/dev/shm`, in bytes.
const SHM_BYTES: u64 = 64 * 1024 * 1024;

/// Open files: soft and hard, as systemd gives to services; Docker has moved to the same.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// Length of one CPU scheduling period, in microseconds; the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];

const MASKED_DIRS: [&str; 1] = ["/sys/devices/virtual/powercap"];

const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The limits of a process that have a name in Docker, with their numbers for getrlimit(2).
pub(super) const ULIMITS: [(&str, libc::__rlimit_resource_t); 15] = [
    ("as", libc::RLIMIT_AS),
    ("core", libc::RLIMIT_CORE),
    ("cpu", libc::RLIMIT_CPU),
    ("data", libc::RLIMIT_DATA),
    ("fsize", libc::RLIMIT_FSIZE),
    ("locks", libc::RLIMIT_LOCKS),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("nofile", libc::RLIMIT_NOFILE),
    ("nproc", libc::RLIMIT_NPROC),
    ("rss", libc::RLIMIT_RSS),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("stack", libc::RLIMIT_STACK),
];

/// What the shim may do itself; a container cannot get more.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    /// Bit set of the shim's permitted capabilities.
    pub(super) capabilities: u64,
    /// The shim's hard limits, by the names of [`ULIMITS`].
    pub(super) ulimits: BTreeMap<&'static str, u64>,
    /// `oom_score_adj` of the shim; a negative one is not handed on to containers.
    pub(super) oom_score_adj: i32,
    /// Where cgroup hierarchies appear inside, innermost first; all are made read-only.
    pub(super) cgroup_paths: Vec<String>,
    /// A directory that holds what is to be seen of the cgroups, read-only already; otherwise the runtime mounts them.
    pub(super) cgroup_view: Option<PathBuf>,
    /// Whether cgroups can hold a list of devices (v1); without one, none is written.
    pub(super) device_list: bool,
}

/// A device of the host as found by the shim.
#[derive(Clone, Debug)]
pub(super) struct FoundDevice {
    pub(super) target: String,
    pub(super) access: String,
    /// `c` or `b`.
    pub(super) kind: &'static str,
    pub(super) major: u64,
    pub(super) minor: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Returns the host name inside: as given, or the id's beginning, as in Docker.
pub(super) fn hostname(spec: &ContainerSpec) -> String {
    if spec.hostname.is_empty() { spec.id.chars().take(12).collect() } else { spec.hostname.clone() }
}

/// Builds `config.json`. `filter` says whether the runtime that reads it installs the system call filter itself.
pub(super) fn config(spec: &ContainerSpec, user: &User, devices: &[FoundDevice], host: &Host, filter: bool) -> Value {
    let kinds = ["pid", "mount", "network", "ipc", "uts", "cgroup"].into_iter();
    let namespaces: Vec<Value> = kinds.map(|kind| json!({ "type": kind })).collect();
    let masked = [&MASKED_PATHS[..], &MASKED_DIRS[..]].concat();
    let mut read_only: Vec<String> = READONLY_PATHS.iter().map(|path| (*path).to_owned()).collect();
    if host.cgroup_view.is_none() {
        read_only.extend(host.cgroup_paths.iter().cloned());
    }
    let process = process(spec, user, host);
    let mut linux = json!({
        "cgroupsPath": format!("/{}/{}", spec.cgroup_parent.trim_matches('/'), spec.id),
        "namespaces": namespaces,
        "resources": resources(spec.limits, devices, host),
        "maskedPaths": masked,
        "readonlyPaths": read_only,
        "sysctl": sysctls(spec),
        "devices": devices.iter().map(device).collect::<Vec<_>>(),
    });
    if filter && !spec.privileges.unfiltered {
        linux["seccomp"] = seccomp::profile(&capability_names(&process));
    }
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": bundle::ROOTFS, "readonly": spec.readonly_rootfs },
        "hostname": hostname(spec),
        "process": process,
        "mounts": mounts(spec, host),
        "linux": linux,
    })
}

/// Builds the `process` of a further command in a running container.
pub(super) fn exec_process(
    spec: &ContainerSpec,
    exec: &ExecSpec,
    size: Option<WindowSize>,
    user: &User,
    host: &Host,
) -> Value {
    let mut joined = spec.clone();
    joined.args.clone_from(&exec.args);
    joined.env.extend(exec.env.iter().cloned());
    joined.tty = exec.tty;
    if !exec.cwd.is_empty() {
        joined.cwd.clone_from(&exec.cwd);
    }
    if exec.privileged {
        joined.privileges.cap_add = vec!["ALL".to_owned()];
        joined.privileges.cap_drop.clear();
        joined.privileges.new_privileges = true;
    }
    let mut process = process(&joined, user, host);
    if let Some(WindowSize { rows, columns }) = size.filter(|_| exec.tty) {
        process["consoleSize"] = json!({ "height": rows, "width": columns });
    }
    process
}

fn process(spec: &ContainerSpec, user: &User, host: &Host) -> Value {
    let bounding = capabilities::bounding(&spec.privileges, host.capabilities);
    let held: &[String] = if user.uid == 0 { &bounding } else { &[] };
    let mut process = json!({
        "terminal": spec.tty,
        "user": { "uid": user.uid, "gid": user.gid, "umask": 0o022, "additionalGids": user.groups },
        "args": spec.args,
        "env": environment(spec),
        "cwd": if spec.cwd.is_empty() { "/" } else { &spec.cwd },
        "noNewPrivileges": !spec.privileges.new_privileges,
        "capabilities": {
            "bounding": bounding, "effective": held, "permitted": held, "inheritable": [], "ambient": [],
        },
        "rlimits": rlimits(&spec.ulimits, host),
    });
    if host.oom_score_adj < 0 {
        process["oomScoreAdj"] = json!(0);
    }
    process
}

fn capability_names(process: &Value) -> Vec<String> {
    let bounding = process["capabilities"]["bounding"].as_array();
    bounding.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn rlimits(ulimits: &[Ulimit], host: &Host) -> Vec<Value> {
    let open_files = Ulimit { name: "nofile".to_owned(), soft: OPEN_FILES.0, hard: OPEN_FILES.1 };
    let default = if ulimits.iter().any(|ulimit| ulimit.name == open_files.name) { None } else { Some(&open_files) };
    let limit = |ulimit: &Ulimit| {
        let most = host.ulimits.get(ulimit.name.as_str()).copied().unwrap_or(u64::MAX);
        let hard = ulimit.hard.min(most);
        let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
        json!({ "type": name, "soft": ulimit.soft.min(hard), "hard": hard })
    };
    ulimits.iter().chain(default).map(limit).collect()
}

fn environment(spec: &ContainerSpec) -> Vec<String> {
    let has = |name: &str| spec.env.iter().any(|entry| entry.split('=').next() == Some(name));
    let mut environment = Vec::new();
    if !has("PATH") {
        environment.push(DEFAULT_PATH.to_owned());
    }
    if !has("HOSTNAME") {
        environment.push(format!("HOSTNAME={}", hostname(spec)));
    }
    if spec.tty && !has("TERM") {
        environment.push(DEFAULT_TERM.to_owned());
    }
    environment.extend(spec.env.iter().cloned());
    environment
}

fn resources(limits: Limits, devices: &[FoundDevice], host: &Host) -> Value {
    let mut resources = json!({});
    if host.device_list {
        let allowed = devices.iter().map(
            |found| json!({ "allow": true, "type": found.kind, "major": found.major, "minor": found.minor, "access": found.access }),
        );
        let rules: Vec<Value> = std::iter::once(json!({ "allow": false, "access": "rwm" })).chain(allowed).collect();
        resources["devices"] = json!(rules);
    }
    if let Some(bytes) = limits.memory_bytes {
        resources["memory"] = json!({ "limit": i64::try_from(bytes).unwrap_or(i64::MAX) });
    }
    if let Some(nano) = limits.nano_cpus {
        let quota_us = nano.saturating_mul(CPU_PERIOD_US) / 1_000_000_000;
        resources["cpu"] = json!({ "quota": i64::try_from(quota_us).unwrap_or(i64::MAX), "period": CPU_PERIOD_US });
    }
    if let Some(pids) = limits.pids_max {
        resources["pids"] = json!({ "limit": i64::try_from(pids).unwrap_or(i64::MAX) });
    }
    resources
}

fn device(found: &FoundDevice) -> Value {
    json!({
        "path": found.target, "type": found.kind, "major": found.major, "minor": found.minor,
        "fileMode": found.mode & 0o777, "uid": found.uid, "gid": found.gid,
    })
}

fn sysctls(spec: &ContainerSpec) -> BTreeMap<String, String> {
    let mut sysctls: BTreeMap<String, String> =
        [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
    sysctls.extend(spec.sysctls.clone());
    sysctls
}

fn mounts(spec: &ContainerSpec, host: &Host) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let shm_size = format!("size={}", spec.shm_bytes.unwrap_or(SHM_BYTES));
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        match &host.cgroup_view {
            Some(view) => json!({
                "destination": "/sys/fs/cgroup", "type": "bind", "source": view,
                "options": ["rbind", "rprivate", "nosuid", "noexec", "nodev", "ro"],
            }),
            None => mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        },
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm_size]),
    ];
    mounts.extend(spec.mounts.iter().map(own_mount));
    mounts
}

fn own_mount(mount: &Mount) -> Value {
    let mut options: Vec<String> = Vec::new();
    let (kind, source) = match &mount.source {
        MountSource::Bind(path) | MountSource::Volume { directory: path, .. } => {
            options.extend(["rbind", "rprivate"].map(str::to_owned));
            if mount.readonly {
                // What is mounted below it as well.
                options.push("rro".to_owned());
            }
            ("bind", path.display().to_string())
        }
        MountSource::Tmpfs { bytes_max, mode } => {
            options.extend(["nosuid", "nodev", "noexec"].map(str::to_owned));
            options.push(format!("mode={:o}", mode.unwrap_or(0o1777)));
            options.extend(bytes_max.map(|bytes| format!("size={bytes}")));
            ("tmpfs", "tmpfs".to_owned())
        }
    };
    if mount.readonly {
        options.push("ro".to_owned());
    }
    json!({ "destination": mount.target, "type": kind, "source": source, "options": options })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(capabilities: u64) -> Host {
        Host { capabilities, ulimits: [("nofile", 20_000)].into(), ..Host::default() }
    }

    fn built(spec: &ContainerSpec, user: &User, capabilities: u64) -> Value {
        config(spec, user, &[], &host(capabilities), false)
    }

    #[test]
    fn a_container_gets_no_more_than_its_host_has() {
        let spec = ContainerSpec { id: "one".to_owned(), ..ContainerSpec::default() };
        let config = built(&spec, &User::default(), 0b11);
        assert_eq!(config["process"]["capabilities"]["bounding"], json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE"]));
        assert_eq!(config["process"]["rlimits"][0]["hard"], json!(20_000));
    }

    #[test]
    fn a_user_other_than_root_holds_no_capability() {
        let spec = ContainerSpec { id: "one".to_owned(), ..ContainerSpec::default() };
        let config = built(&spec, &User { uid: 7, ..User::default() }, u64::MAX);
        assert_eq!(config["process"]["capabilities"]["effective"], json!([]));
        assert_eq!(config["process"]["capabilities"]["permitted"], json!([]));
    }

    #[test]
    fn the_environment_of_the_spec_wins_over_the_defaults() {
        let env = vec!["PATH=/only".to_owned(), "A=b=c".to_owned()];
        let spec = ContainerSpec { id: "abcdefghijklmnop".to_owned(), env, ..ContainerSpec::default() };
        assert_eq!(environment(&spec), ["HOSTNAME=abcdefghijkl", "PATH=/only", "A=b=c"]);
    }
}
