//! Options: from what a service asks for its containers to what the runtime is told.

use std::path::{Path, PathBuf};

use shoal_cluster::intent::service::TaskSpec;
use shoal_cluster::intent::service::container::{ContainerOptions, Host, Log, Mount, MountSource, Ulimit};
use shoal_runtime::container::{self as runtime, ContainerSpec, Limits, LogLimits, Privileges};

use super::files;

/// Where every container has memory to share, and a tmpfs says only how much.
const SHARED_MEMORY: &str = "/dev/shm";

/// Says why no node could make a container like that; what only a node can know (a path, a user) is left to it.
pub fn check(task: &TaskSpec) -> Result<(), String> {
    let mut spec = ContainerSpec {
        id: "check".to_owned(),
        layers: vec![PathBuf::from("/layer")],
        args: vec!["command".to_owned()],
        cgroup_parent: "shoal".to_owned(),
        ..ContainerSpec::default()
    };
    apply(task, &mut spec, Path::new("/files"), |_, _| PathBuf::from("/volume"));
    spec.check().map_err(|error| error.to_string())
}

/// Writes a task's options into the spec of its container. `directory` says where a volume is: the mount's number, and
/// the volume's name if it has one; `secrets` where the task's secrets and configs are.
pub(super) fn apply(
    task: &TaskSpec,
    spec: &mut ContainerSpec,
    secrets: &Path,
    directory: impl Fn(usize, Option<&str>) -> PathBuf,
) {
    let options = &task.container;
    spec.readonly_rootfs = task.read_only;
    spec.limits = Limits {
        memory_bytes: task.limits.memory_bytes,
        nano_cpus: task.limits.nano_cpus,
        pids_max: task.limits.pids_max,
        where_possible: false,
    };
    spec.groups.clone_from(&options.groups);
    spec.init = options.init;
    spec.tty = options.tty;
    spec.stdin = options.open_stdin;
    spec.hosts.extend(options.hosts.iter().map(|Host { address, names }| (*address, names.join(" "))));
    spec.shm_bytes = options.mounts.iter().find_map(shared_memory);
    let mounts = options.mounts.iter().enumerate().filter(|(_, mount)| shared_memory(mount).is_none());
    spec.mounts = mounts.map(|(number, mount)| mounted(mount, |name| directory(number, name))).collect();
    spec.mounts.extend(files::mounts(&options.files, secrets));
    spec.ulimits = options.ulimits.iter().map(ulimit).collect();
    spec.sysctls.clone_from(&options.sysctls);
    spec.privileges = privileges(options);
    spec.log = options.log.as_ref().map_or_else(LogLimits::default, log);
}

/// Returns how much memory a mount gives the processes to share, if that is all it does.
fn shared_memory(mount: &Mount) -> Option<u64> {
    match mount.source {
        MountSource::Tmpfs { bytes_max, mode: None } if mount.target == SHARED_MEMORY && !mount.read_only => bytes_max,
        MountSource::Tmpfs { .. } | MountSource::Bind(_) | MountSource::Volume { .. } => None,
    }
}

fn mounted(mount: &Mount, directory: impl Fn(Option<&str>) -> PathBuf) -> runtime::Mount {
    let source = match &mount.source {
        MountSource::Bind(path) => runtime::MountSource::Bind(path.into()),
        MountSource::Volume { name, no_copy, labels: _ } => {
            let directory = directory(name.as_ref().map(|name| name.as_str()));
            runtime::MountSource::Volume { directory, copy: !no_copy }
        }
        MountSource::Tmpfs { bytes_max, mode } => runtime::MountSource::Tmpfs { bytes_max: *bytes_max, mode: *mode },
    };
    runtime::Mount { target: mount.target.clone(), readonly: mount.read_only, source }
}

fn ulimit(ulimit: &Ulimit) -> runtime::Ulimit {
    let limit = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    runtime::Ulimit { name: ulimit.name.clone(), soft: limit(ulimit.soft), hard: limit(ulimit.hard) }
}

fn privileges(options: &ContainerOptions) -> Privileges {
    Privileges {
        cap_add: options.capabilities_added.clone(),
        cap_drop: options.capabilities_dropped.clone(),
        new_privileges: options.new_privileges,
        unfiltered: options.unfiltered,
    }
}

fn log(log: &Log) -> LogLimits {
    let default = LogLimits::default();
    LogLimits {
        file_bytes_max: log.file_bytes_max.unwrap_or(default.file_bytes_max),
        files_max: log.files_max.unwrap_or(default.files_max),
    }
}

#[cfg(test)]
mod tests {
    use shoal_cluster::intent::service::ImageRef;
    use shoal_cluster::intent::service::container::VolumeName;

    use super::*;

    fn task(change: impl Fn(&mut ContainerOptions)) -> TaskSpec {
        let mut task = TaskSpec::new(ImageRef { reference: "web:1".to_owned(), digest: None });
        change(&mut task.container);
        task
    }

    fn tmpfs(target: &str, bytes_max: Option<u64>) -> Mount {
        Mount { target: target.to_owned(), read_only: false, source: MountSource::Tmpfs { bytes_max, mode: None } }
    }

    #[test]
    fn what_the_runtime_would_refuse_is_refused_before() {
        assert_eq!(check(&task(|_| ())), Ok(()));
        let named = |name: &str| vec![name.to_owned()];
        let refused = |task: TaskSpec| check(&task).unwrap_err();
        assert!(refused(task(|options| options.capabilities_added = named("FLY"))).contains("FLY"));
        let sysctl = ("kernel.panic".to_owned(), "1".to_owned());
        assert!(refused(task(|options| options.sysctls = [sysctl.clone()].into())).contains("kernel.panic"));
        assert!(refused(task(|options| options.mounts = vec![tmpfs("/proc/x", None)])).contains("/proc/x"));
        let ulimit = Ulimit { name: "nope".to_owned(), soft: 1, hard: 1 };
        assert!(refused(task(|options| options.ulimits = vec![ulimit.clone()])).contains("nope"));
    }

    #[test]
    fn a_tmpfs_at_dev_shm_sizes_the_one_that_is_there() {
        let mut spec = ContainerSpec::default();
        let mounts = vec![tmpfs("/a", None), tmpfs(SHARED_MEMORY, Some(1 << 20))];
        apply(&task(|options| options.mounts.clone_from(&mounts)), &mut spec, Path::new("/files"), |_, _| {
            PathBuf::new()
        });
        assert_eq!((spec.shm_bytes, spec.mounts.len()), (Some(1 << 20), 1));
    }

    #[test]
    fn volumes_keep_the_numbers_of_their_mounts() {
        let volume = |name: Option<&str>| MountSource::Volume {
            name: name.map(|name| VolumeName::new(name).unwrap()),
            no_copy: name.is_none(),
            labels: Default::default(),
        };
        let at = |target: &str, source| Mount { target: target.to_owned(), read_only: false, source };
        let mounts = vec![tmpfs(SHARED_MEMORY, Some(9)), at("/a", volume(Some("data"))), at("/b", volume(None))];
        let mut spec = ContainerSpec::default();
        let directory = |number: usize, name: Option<&str>| PathBuf::from(format!("/{number}{}", name.unwrap_or("-")));
        apply(&task(|options| options.mounts.clone_from(&mounts)), &mut spec, Path::new("/files"), directory);
        let source = |directory: &str, copy| runtime::MountSource::Volume { directory: directory.into(), copy };
        assert_eq!(spec.mounts[0].source, source("/1data", true));
        assert_eq!(spec.mounts[1].source, source("/2-", false));
    }
}
