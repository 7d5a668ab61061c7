//! Checks a [`ContainerSpec`] before anything is made from it: what passes cannot name a path or a cgroup of another.

use super::super::rootfs::LAYERS_MAX;
use super::super::{ContainerSpec, Device, ExecSpec, Mount, MountSource, capabilities, oci};
use crate::log::FILES_MAX;

/// Longest id, in characters: it is a directory, a cgroup and the head of a host name.
const ID_CHARS_MAX: usize = 64;

/// Most bytes of arguments and environment together; the kernel's own limit for an `exec` is a quarter of the stack.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// The same for a further command, which travels in one message.
const EXEC_TEXT_BYTES_MAX: usize = 96 * 1024;

/// Returns what is wrong with a spec, as a sentence for the operator.
pub(super) fn spec(spec: &ContainerSpec) -> Result<(), String> {
    if !name(&spec.id) {
        return Err(format!("the id {:?} is not 1 to {ID_CHARS_MAX} of a-z A-Z 0-9 _ . -", spec.id));
    }
    if spec.layers.is_empty() || spec.layers.len() > LAYERS_MAX {
        return Err(format!("{} layers, not 1 to {LAYERS_MAX}", spec.layers.len()));
    }
    if let Some(layer) = spec.layers.iter().find(|layer| !layer.is_absolute()) {
        return Err(format!("the layer {} is not an absolute path", layer.display()));
    }
    command(&spec.args, &spec.env, &spec.cwd, TEXT_BYTES_MAX)?;
    if spec.hostname.len() > ID_CHARS_MAX || spec.hostname.contains(['\0', '\n']) {
        return Err(format!("{:?} is not a host name", spec.hostname));
    }
    if spec.hosts.iter().any(|(_, name)| name.contains(['\n', '\0'])) {
        return Err("a name in the hosts holds a line break".to_owned());
    }
    let parent: Vec<&str> = spec.cgroup_parent.split('/').collect();
    if parent.len() > 8 || !parent.iter().all(|part| name(part)) {
        return Err(format!("the cgroup parent {:?} is not a relative path of plain names", spec.cgroup_parent));
    }
    spec.mounts.iter().try_for_each(mount)?;
    spec.devices.iter().try_for_each(device)?;
    privileges(spec)?;
    settings(spec)?;
    limits(spec)
}

/// Returns what is wrong with a further command.
pub(super) fn exec(exec: &ExecSpec) -> Result<(), String> {
    command(&exec.args, &exec.env, &exec.cwd, EXEC_TEXT_BYTES_MAX)
}

fn command(args: &[String], env: &[String], cwd: &str, bytes_max: usize) -> Result<(), String> {
    if args.first().is_none_or(String::is_empty) {
        return Err("no command: neither the service nor the image names one".to_owned());
    }
    if args.iter().chain(env).any(|text| text.contains('\0')) {
        return Err("an argument or environment variable holds a NUL byte".to_owned());
    }
    if args.iter().chain(env).map(String::len).sum::<usize>() > bytes_max {
        return Err(format!("arguments and environment are larger than {} KiB", bytes_max / 1024));
    }
    if let Some(entry) = env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        return Err(format!("the environment variable {entry:?} is not NAME=value"));
    }
    if !(cwd.is_empty() || cwd.starts_with('/')) || cwd.contains('\0') {
        return Err(format!("the working directory {cwd:?} is not an absolute path"));
    }
    Ok(())
}

fn mount(mount: &Mount) -> Result<(), String> {
    let parts: Vec<&str> = mount.target.split('/').filter(|part| !part.is_empty()).collect();
    let plain = mount.target.starts_with('/') && !parts.iter().any(|part| matches!(*part, "." | ".."));
    if !plain || parts.is_empty() || mount.target.contains('\0') {
        return Err(format!("the mount target {:?} is not an absolute path below /", mount.target));
    }
    if parts.first() == Some(&"proc") {
        return Err(format!("the mount target {:?} would hide what keeps the container in", mount.target));
    }
    match &mount.source {
        MountSource::Bind(path) | MountSource::Volume { directory: path, .. } if !path.is_absolute() => {
            Err(format!("the mount source {} is not an absolute path", path.display()))
        }
        MountSource::Tmpfs { bytes_max: Some(0), .. } => Err("a tmpfs of no bytes holds nothing".to_owned()),
        MountSource::Bind(_) | MountSource::Volume { .. } | MountSource::Tmpfs { .. } => Ok(()),
    }
}

fn device(device: &Device) -> Result<(), String> {
    let inside = device.target.strip_prefix("/dev/").is_some_and(|rest| !rest.is_empty());
    if !device.host.is_absolute() || !inside || device.target.split('/').any(|part| part == "..") {
        return Err(format!(
            "the device {}:{} is not a path to a path below /dev",
            device.host.display(),
            device.target
        ));
    }
    if device.access.is_empty() || !device.access.chars().all(|letter| "rwm".contains(letter)) {
        return Err(format!("the device access {:?} is not any of r, w and m", device.access));
    }
    Ok(())
}

fn privileges(spec: &ContainerSpec) -> Result<(), String> {
    let privileges = &spec.privileges;
    let named = privileges.cap_add.iter().chain(&privileges.cap_drop);
    if let Some(name) = named.into_iter().find(|name| capabilities::canonical(name).is_none()) {
        return Err(format!("there is no capability {name:?}"));
    }
    Ok(())
}

/// Parameters that each container has for itself; any other would be the host's.
fn settings(spec: &ContainerSpec) -> Result<(), String> {
    let of_ipc = ["shmmax", "shmall", "shmmni", "shm_rmid_forced", "msgmax", "msgmnb", "msgmni", "sem"];
    let own = |name: &str| {
        let ipc = name.strip_prefix("kernel.").is_some_and(|rest| of_ipc.contains(&rest));
        ipc || name.starts_with("fs.mqueue.") || name.starts_with("net.")
    };
    let plain = |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter));
    if let Some(name) = spec.sysctls.keys().find(|name| !own(name) || !plain(name) || name.contains("..")) {
        return Err(format!("the sysctl {name:?} is not one that a container has for itself"));
    }
    let known = |name: &str| oci::ULIMITS.iter().any(|(known, _)| *known == name);
    if let Some(ulimit) = spec.ulimits.iter().find(|ulimit| !known(&ulimit.name) || ulimit.soft > ulimit.hard) {
        return Err(format!(
            "the ulimit {}={}:{} is unknown, or soft is above hard",
            ulimit.name, ulimit.soft, ulimit.hard
        ));
    }
    let log = spec.log;
    if !(4096..=1 << 30).contains(&log.file_bytes_max) || !(1..=FILES_MAX).contains(&log.files_max) {
        return Err(format!("a log is 1 to {FILES_MAX} files of 4 KiB to 1 GiB"));
    }
    Ok(())
}

fn limits(spec: &ContainerSpec) -> Result<(), String> {
    if spec.limits.memory_bytes.is_some_and(|bytes| bytes < 6 * 1024 * 1024) {
        return Err("the memory limit is below 6 MiB, the least that Docker allows".to_owned());
    }
    if spec.limits.nano_cpus.is_some_and(|nano| nano < 10_000_000) {
        return Err("the CPU limit is below a hundredth of a processor".to_owned());
    }
    if spec.limits.pids_max == Some(0) {
        return Err("a limit of no processes lets nothing run".to_owned());
    }
    Ok(())
}

fn name(text: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-');
    !text.is_empty() && text.len() <= ID_CHARS_MAX && !text.starts_with('.') && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> ContainerSpec {
        ContainerSpec {
            id: "web.1-x_y".to_owned(),
            layers: vec!["/layers/a".into()],
            args: vec!["sh".to_owned()],
            cgroup_parent: "shoal/node".to_owned(),
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn a_plain_spec_is_accepted() {
        assert_eq!(spec(&valid()), Ok(()));
    }

    #[test]
    fn what_could_reach_beyond_the_container_is_refused() {
        let refused = |change: fn(&mut ContainerSpec)| {
            let mut changed = valid();
            change(&mut changed);
            spec(&changed).unwrap_err()
        };
        assert!(refused(|spec| spec.id = "../other".to_owned()).contains("id"));
        assert!(refused(|spec| spec.id = String::new()).contains("id"));
        assert!(refused(|spec| spec.id = "x".repeat(65)).contains("id"));
        assert!(refused(|spec| spec.cgroup_parent = "shoal/../..".to_owned()).contains("cgroup"));
        assert!(refused(|spec| spec.cgroup_parent = "/shoal".to_owned()).contains("cgroup"));
        assert!(refused(|spec| spec.layers.clear()).contains("layers"));
        assert!(refused(|spec| spec.layers = vec!["relative".into()]).contains("absolute"));
        assert!(refused(|spec| spec.args.clear()).contains("command"));
        assert!(refused(|spec| spec.env = vec!["=x".to_owned()]).contains("NAME=value"));
        assert!(refused(|spec| spec.cwd = "relative".to_owned()).contains("working directory"));
        assert!(refused(|spec| spec.hosts = vec![([1, 2, 3, 4].into(), "a\n6.6.6.6 b".to_owned())]).contains("hosts"));
        assert!(refused(|spec| spec.limits.memory_bytes = Some(1)).contains("memory"));
        assert!(refused(|spec| spec.mounts = vec![tmpfs("/a/../../b")]).contains("mount target"));
        assert!(refused(|spec| spec.mounts = vec![tmpfs("/")]).contains("mount target"));
        assert!(refused(|spec| spec.mounts = vec![tmpfs("//proc/sys")]).contains("mount target"));
        assert!(refused(|spec| spec.sysctls = [("kernel.panic".to_owned(), "1".to_owned())].into()).contains("sysctl"));
        assert!(refused(|spec| spec.sysctls = [("net../kernel".to_owned(), "1".to_owned())].into()).contains("sysctl"));
        assert!(refused(|spec| spec.privileges.cap_add = vec!["NO_SUCH".to_owned()]).contains("capability"));
        assert!(refused(|spec| spec.devices = vec![device("/etc/shadow")]).contains("device"));
        assert!(refused(|spec| spec.devices = vec![device("/dev/../x")]).contains("device"));
    }

    fn tmpfs(target: &str) -> Mount {
        let source = MountSource::Tmpfs { bytes_max: None, mode: None };
        Mount { target: target.to_owned(), readonly: false, source }
    }

    fn device(target: &str) -> Device {
        Device { host: "/dev/null".into(), target: target.to_owned(), access: "rw".to_owned() }
    }
}
