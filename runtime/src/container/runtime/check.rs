//! Checks a [`ContainerSpec`] before anything is made from it: what passes cannot name a path or a cgroup of another.

use super::super::ContainerSpec;
use super::super::rootfs::LAYERS_MAX;

/// Longest id, in characters: it is a directory, a cgroup and the head of a host name.
const ID_CHARS_MAX: usize = 64;

/// Most bytes of arguments and environment together; the kernel's own limit for an `exec` is a quarter of the stack.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

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
    if spec.args.first().is_none_or(String::is_empty) {
        return Err("no command: neither the service nor the image names one".to_owned());
    }
    if spec.args.iter().chain(&spec.env).any(|text| text.contains('\0')) {
        return Err("an argument or environment variable holds a NUL byte".to_owned());
    }
    if spec.args.iter().chain(&spec.env).map(String::len).sum::<usize>() > TEXT_BYTES_MAX {
        return Err("arguments and environment are larger than 1 MiB".to_owned());
    }
    if let Some(entry) = spec.env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        return Err(format!("the environment variable {entry:?} is not NAME=value"));
    }
    if !(spec.cwd.is_empty() || spec.cwd.starts_with('/')) || spec.cwd.contains('\0') {
        return Err(format!("the working directory {:?} is not an absolute path", spec.cwd));
    }
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
    limits(spec)
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
    }
}
