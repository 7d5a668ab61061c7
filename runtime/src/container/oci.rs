//! The OCI runtime spec (`config.json`) of a container: Docker's defaults, narrowed where the host allows less.
//!
//! Input: a [`ContainerSpec`] and what the shim found out (user, limits and capabilities of its own). Output: JSON.
//! Two defaults are stricter than Docker's: no `CAP_MKNOD` (cgroup v2 has no device list without a BPF program, and
//! nothing in a container needs it), and always no-new-privileges.

use serde_json::{Value, json};

use super::user::User;
use super::{ContainerSpec, Limits, bundle};

/// Docker's `PATH` for images that set none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Docker's default capabilities without `CAP_MKNOD`, with their numbers (linux/capability.h).
const CAPABILITIES: [(&str, u32); 13] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_FSETID", 4),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_SETPCAP", 8),
    ("CAP_NET_BIND_SERVICE", 10),
    ("CAP_NET_RAW", 13),
    ("CAP_SYS_CHROOT", 18),
    ("CAP_AUDIT_WRITE", 29),
    ("CAP_SETFCAP", 31),
];

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

/// What the shim may do itself; a container cannot get more.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// Bit set of the shim's permitted capabilities.
    pub(super) capabilities: u64,
    /// The shim's hard limit on open files.
    pub(super) open_files_max: u64,
    /// `oom_score_adj` of the shim; a negative one is not handed on to containers.
    pub(super) oom_score_adj: i32,
    /// Where cgroup hierarchies appear inside, innermost first; all are made read-only.
    pub(super) cgroup_paths: Vec<String>,
}

/// Returns the host name inside: as given, or the id's beginning, as in Docker.
pub(super) fn hostname(spec: &ContainerSpec) -> String {
    if spec.hostname.is_empty() { spec.id.chars().take(12).collect() } else { spec.hostname.clone() }
}

/// Builds `config.json`.
pub(super) fn config(spec: &ContainerSpec, user: &User, host: &Host) -> Value {
    let namespaces = ["pid", "mount", "network", "ipc", "uts", "cgroup"].map(|kind| json!({ "type": kind }));
    let masked = [&MASKED_PATHS[..], &MASKED_DIRS[..]].concat();
    let read_only = READONLY_PATHS.iter().map(|path| (*path).to_owned()).chain(host.cgroup_paths.iter().cloned());
    let read_only: Vec<String> = read_only.collect();
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": bundle::ROOTFS, "readonly": spec.readonly_rootfs },
        "hostname": hostname(spec),
        "process": process(spec, user, host),
        "mounts": mounts(),
        "linux": {
            "cgroupsPath": format!("/{}/{}", spec.cgroup_parent.trim_matches('/'), spec.id),
            "namespaces": namespaces,
            "resources": resources(spec.limits),
            "maskedPaths": masked,
            "readonlyPaths": read_only,
            "sysctl": {
                "net.ipv4.ip_unprivileged_port_start": "0",
                "net.ipv4.ping_group_range": "0 2147483647",
            },
        },
    })
}

fn process(spec: &ContainerSpec, user: &User, host: &Host) -> Value {
    let has = |(_, bit): &&(&str, u32)| host.capabilities & (1 << bit) != 0;
    let bounding: Vec<&str> = CAPABILITIES.iter().filter(has).map(|(name, _)| *name).collect();
    let held: &[&str] = if user.uid == 0 { &bounding } else { &[] };
    let hard = OPEN_FILES.1.min(host.open_files_max);
    let mut process = json!({
        "terminal": false,
        "user": { "uid": user.uid, "gid": user.gid, "umask": 0o022, "additionalGids": user.groups },
        "args": spec.args,
        "env": environment(spec),
        "cwd": if spec.cwd.is_empty() { "/" } else { &spec.cwd },
        "noNewPrivileges": true,
        "capabilities": {
            "bounding": bounding, "effective": held, "permitted": held, "inheritable": [], "ambient": [],
        },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": OPEN_FILES.0.min(hard), "hard": hard }],
    });
    if host.oom_score_adj < 0 {
        process["oomScoreAdj"] = json!(0);
    }
    process
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
    environment.extend(spec.env.iter().cloned());
    environment
}

fn resources(limits: Limits) -> Value {
    let mut resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
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

fn mounts() -> Value {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    json!([
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(capabilities: u64) -> Host {
        Host { capabilities, open_files_max: 20_000, oom_score_adj: 0, cgroup_paths: Vec::new() }
    }

    #[test]
    fn a_container_gets_no_more_than_its_host_has() {
        let spec = ContainerSpec { id: "one".to_owned(), ..ContainerSpec::default() };
        let config = config(&spec, &User::default(), &host(0b11));
        assert_eq!(config["process"]["capabilities"]["bounding"], json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE"]));
        assert_eq!(config["process"]["rlimits"][0]["hard"], json!(20_000));
    }

    #[test]
    fn a_user_other_than_root_holds_no_capability() {
        let spec = ContainerSpec { id: "one".to_owned(), ..ContainerSpec::default() };
        let config = config(&spec, &User { uid: 7, ..User::default() }, &host(u64::MAX));
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
