//! Cgroups: finds a container's groups in v1, hybrid and v2 hierarchies, makes, reads, empties and removes them.
//!
//! Limits are written by libcontainer; this is what is needed around it. Runs only in a shim, which also mounts the
//! hierarchies privately where a network namespace made by other tools hides them (`ip netns exec` mounts a new `/sys`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::unistd::Pid;

const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// How often emptying and removing is tried, with growing pauses: about four seconds in all.
const ATTEMPTS: u32 = 60;

/// One container's group in every hierarchy of the host.
pub(super) struct Cgroup {
    hierarchies: Vec<Hierarchy>,
    relative: PathBuf,
}

struct Hierarchy {
    mount_point: PathBuf,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// With these controllers.
    V1(Vec<String>),
    /// Without controllers, as systemd's own.
    Named,
    V2,
}

impl Cgroup {
    /// Finds the mounted hierarchies. `relative` is the group's path within each of them.
    pub(super) fn locate(relative: PathBuf) -> io::Result<Self> {
        let hierarchies = visible()?;
        Ok(Self { hierarchies, relative })
    }

    fn groups(&self) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        self.hierarchies.iter().map(|hierarchy| (hierarchy, hierarchy.mount_point.join(&self.relative)))
    }

    /// Makes the group before libcontainer does, in the hierarchies that it uses. Another daemon may be removing
    /// the empty parents that both share, so it is tried again.
    pub(super) fn create(&self) -> io::Result<()> {
        for (hierarchy, group) in self.used_groups() {
            let mut attempt = 0;
            while let Err(error) = hierarchy.create_group(&group) {
                attempt += 1;
                if attempt == 5 {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Whether v1 holds the limits: alone, or beside a v2 without controllers.
    pub(super) fn has_v1(&self) -> bool {
        self.hierarchies.iter().any(|hierarchy| matches!(hierarchy.kind, Kind::V1(_)))
    }

    /// Returns the group in the hierarchy that has `controller`, if this host has one; to be asked when the group exists.
    pub(super) fn group_with(&self, controller: &str) -> Option<PathBuf> {
        let has = |(hierarchy, group): &(&Hierarchy, PathBuf)| match &hierarchy.kind {
            Kind::V1(names) => names.iter().any(|name| name == controller),
            Kind::Named => false,
            Kind::V2 => {
                let names = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
                names.split_whitespace().any(|name| name == controller)
            }
        };
        self.groups().find(has).map(|(_, group)| group)
    }

    /// Returns the group in one of the hierarchies that it is made in.
    pub(super) fn any_group(&self) -> Option<PathBuf> {
        self.used_groups().next().map(|(_, group)| group)
    }

    /// The hierarchies that container runtimes use: v1's where there are any, else v2.
    fn used_groups(&self) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        let has_v1 = self.has_v1();
        self.groups().filter(move |(hierarchy, _)| match hierarchy.kind {
            Kind::V1(_) => true,
            Kind::V2 => !has_v1,
            Kind::Named => false,
        })
    }

    /// Returns where the hierarchies are inside a container, innermost first: runtimes mount those of v1 writable.
    pub(super) fn paths_inside(&self) -> Vec<String> {
        let mut paths: Vec<String> =
            self.hierarchies.iter().map(|found| found.mount_point.display().to_string()).collect();
        paths.retain(|path| path != MOUNT_POINT);
        paths.push(MOUNT_POINT.to_owned());
        paths
    }

    /// Mounts at `directory` what a container is to see of v1, its own group in each hierarchy, all read-only. Bound into
    /// the container it is one mount there, instead of one for each hierarchy, which libcontainer makes at great length.
    pub(super) fn mount_view(&self, directory: &Path) -> io::Result<()> {
        let hidden = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | hidden;
        let none = None::<&str>;
        mount(Some("tmpfs"), directory, Some("tmpfs"), hidden, Some("mode=755,size=64k"))?;
        for (hierarchy, group) in self.used_groups() {
            let Some(name) = hierarchy.mount_point.file_name() else { continue };
            let target = directory.join(name);
            fs::create_dir(&target)?;
            mount(Some(&group), &target, none, MsFlags::MS_BIND, none)?;
            mount(none, &target, none, read_only, none)?;
            // Programs look for each controller by its own name.
            for alias in name.to_string_lossy().split(',').filter(|alias| **alias != *name) {
                symlink(name, directory.join(alias))?;
            }
        }
        Ok(mount(none, directory, none, read_only, none)?)
    }

    /// Returns the processes of the group, those of groups below it included, as far as they are visible here.
    pub(super) fn processes(&self) -> Vec<i32> {
        let mut pending: Vec<PathBuf> = self.any_group().into_iter().collect();
        let mut found = Vec::new();
        while let Some(group) = pending.pop() {
            let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            found.extend(members.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            let below = fs::read_dir(&group).into_iter().flatten().flatten();
            pending.extend(
                below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
            );
        }
        found.sort_unstable();
        found
    }

    /// Returns how many processes of the group the kernel killed for want of memory.
    pub(super) fn oom_kills(&self) -> u64 {
        let of = |file: PathBuf| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let value = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let counts =
            self.groups().map(|(_, group)| of(group.join("memory.oom_control")).max(of(group.join("memory.events"))));
        counts.max().unwrap_or(0)
    }

    /// Kills all processes of the group, once.
    pub(super) fn kill(&self) {
        for (_, group) in self.groups() {
            if fs::write(group.join("cgroup.kill"), "1").is_ok() {
                continue;
            }
            let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            // 0 stands for processes outside of our pid namespace; killing it would kill ourselves.
            for pid in members.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 1) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// Kills what is left in the group and removes it, and its parents if they are empty.
    pub(super) fn remove(&self) -> io::Result<()> {
        let mut result = Ok(());
        for attempt in 0..ATTEMPTS {
            result = self.groups().try_for_each(|(_, group)| remove_dir(&group));
            if result.is_ok() {
                break;
            }
            self.kill();
            sleep(Duration::from_millis(u64::from(attempt * 2 + 1)));
        }
        for (hierarchy, group) in self.groups() {
            for parent in group.ancestors().skip(1).take_while(|parent| *parent != hierarchy.mount_point) {
                if fs::remove_dir(parent).is_err() {
                    break;
                }
            }
        }
        result
    }
}

impl Hierarchy {
    fn create_group(&self, group: &Path) -> io::Result<()> {
        if self.kind == Kind::V2 {
            let controllers = fs::read_to_string(self.mount_point.join("cgroup.controllers"))?;
            let mut parents: Vec<&Path> = group.ancestors().skip(1).collect();
            parents.retain(|parent| parent.starts_with(&self.mount_point));
            for parent in parents.into_iter().rev() {
                fs::create_dir_all(parent)?;
                for controller in controllers.split_whitespace() {
                    // Not every controller can be passed on everywhere; a limit that needs it says so later.
                    let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
                }
            }
        }
        fs::create_dir_all(group)
    }
}

fn remove_dir(group: &Path) -> io::Result<()> {
    match fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Returns the hierarchies that are mounted, without those that a later mount hides.
fn visible() -> io::Result<Vec<Hierarchy>> {
    let mut hierarchies = parse_mountinfo(&fs::read_to_string("/proc/self/mountinfo")?);
    hierarchies.retain(|hierarchy| {
        let expected = match hierarchy.kind {
            Kind::V1(_) | Kind::Named => CGROUP_SUPER_MAGIC,
            Kind::V2 => CGROUP2_SUPER_MAGIC,
        };
        statfs(&hierarchy.mount_point).is_ok_and(|found| found.filesystem_type() == expected)
    });
    // One that a later mount of its like hides is there under the same name: the later counts, once.
    let mut seen = BTreeSet::new();
    hierarchies.reverse();
    hierarchies.retain(|hierarchy| seen.insert(hierarchy.mount_point.clone()));
    hierarchies.reverse();
    Ok(hierarchies)
}

/// Picks the cgroup mounts out of `/proc/self/mountinfo`, see proc(5).
fn parse_mountinfo(text: &str) -> Vec<Hierarchy> {
    let parse = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mount_point = PathBuf::from(mount.split(' ').nth(4)?);
        let mut fields = file_system.split(' ');
        let kind = match (fields.next()?, fields.nth(1)?) {
            ("cgroup2", _) => Kind::V2,
            ("cgroup", options) if options.split(',').any(|option| option.starts_with("name=")) => Kind::Named,
            ("cgroup", options) => {
                let controllers = options.split(',').filter(|option| !matches!(*option, "rw" | "ro"));
                Kind::V1(controllers.map(str::to_owned).collect())
            }
            _ => return None,
        };
        mount_point.starts_with(MOUNT_POINT).then_some(Hierarchy { mount_point, kind })
    };
    text.lines().filter_map(parse).collect()
}

/// Mounts the hierarchies at their usual place if it is empty there. Only for a private mount namespace.
pub(super) fn ensure_mounted() -> io::Result<()> {
    let kind = statfs(MOUNT_POINT).map_err(io::Error::from)?.filesystem_type();
    if kind == CGROUP2_SUPER_MAGIC || kind == TMPFS_MAGIC {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let controllers: Vec<&str> = own.lines().filter_map(|line| line.split(':').nth(1)).collect();
    if controllers.iter().all(|names| names.is_empty() || names.starts_with("name=")) {
        return Ok(mount(Some("cgroup2"), MOUNT_POINT, Some("cgroup2"), flags, None::<&str>)?);
    }
    mount(Some("tmpfs"), MOUNT_POINT, Some("tmpfs"), flags, Some("mode=755"))?;
    for names in controllers.iter().filter(|names| !names.is_empty() && !names.starts_with("name=")) {
        let target = Path::new(MOUNT_POINT).join(names);
        fs::create_dir(&target)?;
        mount(Some("cgroup"), &target, Some("cgroup"), flags, Some(*names))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_all_kinds_are_told_apart() {
        let text = "22 1 0:21 / /sys rw - sysfs sysfs rw\n\
            30 22 0:26 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n\
            32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            33 30 0:29 / /sys/fs/cgroup/unified rw master:1 - cgroup2 cgroup2 rw\n\
            34 30 0:30 / /elsewhere/memory rw - cgroup cgroup rw,memory\n";
        let found = parse_mountinfo(text);
        let names: Vec<_> =
            found.iter().map(|found| found.mount_point.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["memory", "systemd", "unified"]);
        assert!(
            found[0].kind == Kind::V1(vec!["memory".to_owned()])
                && found[1].kind == Kind::Named
                && found[2].kind == Kind::V2
        );
    }
}
