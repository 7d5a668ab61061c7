//! Volumes: those that the file declares, and what a service mounts.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountTmpfsOptions, MountType, MountVolumeOptions,
    MountVolumeOptionsDriverConfig,
};

use super::Surroundings;
use super::external::Naming;
use super::tree::{At, ComposeError, wrong};

/// A volume that the file declares.
#[derive(Debug)]
struct Volume {
    name: String,
    options: MountVolumeOptions,
}

/// All volumes of the file, by the names they have in it.
#[derive(Debug)]
pub(super) struct Volumes(BTreeMap<String, Volume>);

impl Volumes {
    /// Reads the section `volumes`.
    pub(super) fn read(section: Vec<(&str, At<'_>)>, surroundings: &Surroundings<'_>) -> Result<Self, ComposeError> {
        let read = |(name, at): (&str, At<'_>)| Ok((name.to_owned(), volume(name, &at, surroundings)?));
        Ok(Self(section.into_iter().map(read).collect::<Result<_, ComposeError>>()?))
    }

    /// Returns what a service mounts: an item of its `volumes`.
    pub(super) fn mount(&self, at: &At<'_>) -> Result<Mount, ComposeError> {
        let mount = if at.is_map() { long(at)? } else { short(at)? };
        let Some(MountType::VOLUME) = mount.typ else { return Ok(mount) };
        let Some(source) = mount.source.as_deref() else { return Ok(mount) };
        let Some(volume) = self.0.get(source) else {
            return Err(wrong(at, format!("the volume {source:?} is not declared in the section `volumes`")));
        };
        let given = mount.volume_options.unwrap_or_default();
        let options = MountVolumeOptions { no_copy: given.no_copy, subpath: given.subpath, ..volume.options.clone() };
        Ok(Mount { source: Some(volume.name.clone()), volume_options: Some(options), ..mount })
    }
}

/// Returns a mount of memory: an item of a service's `tmpfs`.
pub(super) fn tmpfs(at: &At<'_>) -> Result<Mount, ComposeError> {
    let text = at.text()?;
    let (target, options) = text.split_once(':').unwrap_or((&text, ""));
    let mut tmpfs = MountTmpfsOptions::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => {
                let bytes = crate::cli::words::parse_memory(size).map_err(|reason| wrong(at, reason))?;
                tmpfs.size_bytes = Some(bytes);
            }
            Some(("mode", mode)) => {
                let mode = i64::from_str_radix(mode, 8).map_err(|_| wrong(at, "expected a file mode such as 1777"))?;
                tmpfs.mode = Some(mode);
            }
            Some(_) | None => return Err(wrong(at, format!("the option {option:?} is not supported"))),
        }
    }
    Ok(Mount {
        target: Some(target.to_owned()),
        typ: Some(MountType::TMPFS),
        tmpfs_options: Some(tmpfs),
        ..Mount::default()
    })
}

/// Reads `[SOURCE:]TARGET[:OPTIONS]`.
fn short(at: &At<'_>) -> Result<Mount, ComposeError> {
    let text = at.text()?;
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(wrong(at, "expected [SOURCE:]TARGET[:ro]")),
    };
    if !target.starts_with('/') {
        return Err(wrong(at, format!("the target {target:?} is not an absolute path")));
    }
    let is_path = source.is_some_and(|source| source.starts_with(['/', '.', '~']));
    if is_path && !source.is_some_and(|source| source.starts_with('/')) {
        return Err(wrong(at, "the path on the host must be absolute: every node looks for it on its own disk"));
    }
    let mut mount = Mount {
        target: Some(target.to_owned()),
        source: source.map(str::to_owned),
        typ: Some(if is_path { MountType::BIND } else { MountType::VOLUME }),
        ..Mount::default()
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = Some(true),
            "rw" => {}
            "nocopy" => {
                mount.volume_options =
                    Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() });
            }
            // Marks for SELinux, and for Docker on other systems: there is nothing to do.
            "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            other => match propagation(other) {
                Some(propagation) if is_path => mount.bind_options = Some(bind(propagation)),
                Some(_) | None => return Err(wrong(at, format!("the option {other:?} is not supported"))),
            },
        }
    }
    Ok(mount)
}

fn long(at: &At<'_>) -> Result<Mount, ComposeError> {
    let mut mount = Mount::default();
    for (key, at) in at.entries()? {
        match key {
            "type" => {
                mount.typ = Some(match at.text()?.as_str() {
                    "volume" => MountType::VOLUME,
                    "bind" => MountType::BIND,
                    "tmpfs" => MountType::TMPFS,
                    other => return Err(wrong(&at, format!("{other:?} is not supported: volume, bind or tmpfs"))),
                });
            }
            "source" => mount.source = Some(at.text()?),
            "target" => mount.target = Some(at.text()?),
            "read_only" => mount.read_only = Some(at.truth()?),
            "consistency" => {}
            "bind" => mount.bind_options = Some(bind_options(&at)?),
            "volume" => mount.volume_options = Some(volume_options(&at)?),
            "tmpfs" => mount.tmpfs_options = Some(tmpfs_options(&at)?),
            _ => return Err(at.unknown()),
        }
    }
    if mount.typ.is_none() {
        return Err(wrong(at, "expected a key `type`"));
    }
    if mount.target.is_none() {
        return Err(wrong(at, "expected a key `target`"));
    }
    Ok(mount)
}

fn bind_options(at: &At<'_>) -> Result<MountBindOptions, ComposeError> {
    let mut options = MountBindOptions::default();
    for (key, at) in at.entries()? {
        match key {
            "propagation" => {
                let word = at.text()?;
                let known = propagation(&word);
                options.propagation = Some(known.ok_or_else(|| wrong(&at, format!("{word:?} is not supported")))?);
            }
            "create_host_path" => options.create_mountpoint = Some(at.truth()?),
            _ => return Err(at.unknown()),
        }
    }
    Ok(options)
}

fn volume_options(at: &At<'_>) -> Result<MountVolumeOptions, ComposeError> {
    let mut options = MountVolumeOptions::default();
    for (key, at) in at.entries()? {
        match key {
            "nocopy" => options.no_copy = Some(at.truth()?),
            "subpath" => options.subpath = Some(at.text()?),
            _ => return Err(at.unknown()),
        }
    }
    Ok(options)
}

fn tmpfs_options(at: &At<'_>) -> Result<MountTmpfsOptions, ComposeError> {
    let mut options = MountTmpfsOptions::default();
    for (key, at) in at.entries()? {
        match key {
            "size" => options.size_bytes = Some(at.bytes()?),
            "mode" => options.mode = Some(i64::from(at.mode()?)),
            _ => return Err(at.unknown()),
        }
    }
    Ok(options)
}

fn bind(propagation: MountBindOptionsPropagationEnum) -> MountBindOptions {
    MountBindOptions { propagation: Some(propagation), ..MountBindOptions::default() }
}

fn propagation(word: &str) -> Option<MountBindOptionsPropagationEnum> {
    match word {
        "private" => Some(MountBindOptionsPropagationEnum::PRIVATE),
        "rprivate" => Some(MountBindOptionsPropagationEnum::RPRIVATE),
        "shared" => Some(MountBindOptionsPropagationEnum::SHARED),
        "rshared" => Some(MountBindOptionsPropagationEnum::RSHARED),
        "slave" => Some(MountBindOptionsPropagationEnum::SLAVE),
        "rslave" => Some(MountBindOptionsPropagationEnum::RSLAVE),
        _ => None,
    }
}

fn volume(name: &str, at: &At<'_>, surroundings: &Surroundings<'_>) -> Result<Volume, ComposeError> {
    let mut naming = Naming::default();
    let (mut labels, mut driver, mut driver_options) = (HashMap::new(), None, HashMap::new());
    for (key, at) in at.entries()? {
        match key {
            "driver" => driver = Some(at.text()?),
            "driver_opts" => driver_options = at.labels()?,
            "labels" => labels = at.labels()?,
            _ if naming.take(key, &at)? => {}
            _ => return Err(at.unknown()),
        }
    }
    let has_driver = driver.is_some() || !driver_options.is_empty();
    let driver = MountVolumeOptionsDriverConfig { name: driver, options: Some(driver_options) };
    let options = MountVolumeOptions {
        labels: (!naming.external).then(|| surroundings.labelled(labels)),
        driver_config: has_driver.then_some(driver),
        ..MountVolumeOptions::default()
    };
    Ok(Volume { name: naming.resolve(name, surroundings), options })
}
