//! The processes of a host of the demo: who is there, how all of them die at once, and what they cost.
//!
//! A process belongs to a host if it is in the host's network namespace, if it descends from one that is, or if it is
//! in a cgroup of the host's node: so nothing is missed, whoever's child it has become.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The parent of all nodes' cgroups, as `shoal up` names it.
const CGROUP_PARENT: &str = "shoal";
/// How long dying may take: the kernel takes down mounts and interfaces meanwhile.
const DEATH: Duration = Duration::from_secs(20);

/// What tells a host's processes from all others.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    /// Numbers of network namespaces.
    pub(super) namespaces: BTreeSet<u64>,
    /// Ids of nodes.
    pub(super) nodes: BTreeSet<String>,
}

impl Marks {
    /// Returns all processes that bear these marks, but this one.
    pub(super) fn processes(&self) -> BTreeSet<i32> {
        let mut parents = BTreeMap::new();
        let mut found = BTreeSet::new();
        for pid in pids() {
            parents.insert(pid, parent(pid));
            if self.has(pid) {
                found.insert(pid);
            }
        }
        loop {
            let descends = |pid: &i32| parents[pid].is_some_and(|parent| found.contains(&parent));
            let more: Vec<i32> = parents.keys().filter(|pid| !found.contains(pid) && descends(pid)).copied().collect();
            if more.is_empty() {
                break;
            }
            found.extend(more);
        }
        found.remove(&i32::try_from(std::process::id()).unwrap_or_default());
        found
    }

    fn has(&self, pid: i32) -> bool {
        let namespace = fs::metadata(format!("/proc/{pid}/ns/net")).map(|metadata| metadata.ino());
        namespace.is_ok_and(|number| self.namespaces.contains(&number))
            || cgroup_of(pid).is_some_and(|(node, _)| self.nodes.contains(&node))
    }

    /// Kills all of them, again and again until none is left.
    ///
    /// # Errors
    /// Some of them do not die, and the error names them.
    pub(super) fn kill_all(&self) -> io::Result<()> {
        let deadline = Instant::now() + DEATH;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("processes {left:?} do not die")));
            }
            self.strike(&left);
            sleep(Duration::from_millis(10));
        }
    }

    /// Kills these at once, as a loss of power does.
    pub(super) fn strike(&self, processes: &BTreeSet<i32>) {
        for pid in processes {
            // It may be gone already.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
    }

    /// Removes the cgroups of these nodes, which must be empty.
    pub(super) fn remove_cgroups(&self) {
        for mount in cgroup_mounts() {
            let parent = mount.join(CGROUP_PARENT);
            for node in &self.nodes {
                remove_tree(&parent.join(node));
            }
            // Fails as long as another node of this machine has groups there.
            let _ = fs::remove_dir(&parent);
        }
    }

    /// Returns the tasks of these nodes that have a process, each with one of its processes.
    pub(super) fn tasks(&self) -> BTreeMap<String, i32> {
        let of = |pid| cgroup_of(pid).filter(|(node, _)| self.nodes.contains(node)).map(|(_, task)| (task, pid));
        // The first process of a container is the oldest, so it comes last.
        pids().rev().filter_map(of).collect()
    }
}

/// Returns the node and the task whose cgroup a process is in, if it is one of shoal's.
fn cgroup_of(pid: i32) -> Option<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').nth(2)?.split('/');
        parts.find(|part| *part == CGROUP_PARENT)?;
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    })
}

/// Returns where cgroup hierarchies are mounted.
pub(super) fn cgroup_mounts() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        matches!(kind.split(' ').next()?, "cgroup" | "cgroup2").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    };
    text.lines().filter_map(mount).collect()
}

fn remove_tree(group: &Path) {
    for child in fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove_tree(&child.path());
    }
    // The kernel says busy for a moment after the last process ended.
    for _ in 0..50 {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => sleep(Duration::from_millis(10)),
            _ => return,
        }
    }
}

fn pids() -> impl DoubleEndedIterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: BTreeSet<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    all.into_iter()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, parentheses too.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Returns the memory of a process in bytes: what it has in memory, and its share of it where pages are shared.
pub(super) fn memory(pid: i32) -> Option<(u64, u64)> {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
    };
    Some((field("status", "VmRSS:")?, field("smaps_rollup", "Pss:")?))
}

/// Returns the bytes received and sent through `eth0` of the network that a process is in.
pub(super) fn traffic(pid: i32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("eth0:"))?;
    let mut fields = line.split_whitespace();
    Some((fields.next()?.parse().ok()?, fields.nth(7)?.parse().ok()?))
}
