//! Mounts, between Docker's words and shoal's.

use bollard::models::{
    Mount as DockerMount, MountBindOptionsPropagationEnum as Propagation, MountTmpfsOptions, MountType,
    MountVolumeOptions,
};
use shoal_cluster::intent::service::container::{Mount, MountSource, VolumeName};

use super::accept::{AcceptError, map, text};
use super::refuse::{check, some};

/// Accepts one mount.
pub(super) fn accept(mount: DockerMount) -> Result<Mount, AcceptError> {
    refuse(&mount)?;
    let invalid = |field, reason: &str| AcceptError::Invalid { field, reason: reason.to_owned() };
    let target = text("Mounts.Target", mount.target)?.unwrap_or_default();
    let source = text("Mounts.Source", mount.source)?;
    let source = match mount.typ {
        Some(MountType::BIND) => MountSource::Bind(source.unwrap_or_default()),
        Some(MountType::VOLUME) => {
            let options = mount.volume_options.unwrap_or_default();
            let name = source.map(|name| VolumeName::new(&name)).transpose();
            MountSource::Volume {
                name: name.map_err(|error| invalid("Mounts.Source", &error.to_string()))?,
                no_copy: options.no_copy.unwrap_or_default(),
                labels: map("VolumeOptions.Labels", options.labels)?,
            }
        }
        Some(MountType::TMPFS) if source.is_some() => return Err(invalid("Mounts.Source", "a tmpfs has no source")),
        Some(MountType::TMPFS) => tmpfs(&mount.tmpfs_options.unwrap_or_default())?,
        Some(MountType::CLUSTER | MountType::IMAGE | MountType::NPIPE) | None => {
            return Err(invalid("Mounts.Type", "it is none of bind, volume and tmpfs"));
        }
    };
    Ok(Mount { target, read_only: mount.read_only.unwrap_or_default(), source })
}

fn tmpfs(options: &MountTmpfsOptions) -> Result<MountSource, AcceptError> {
    let negative = |field| move |_| AcceptError::Invalid { field, reason: "it is negative, or too great".to_owned() };
    let bytes = u64::try_from(options.size_bytes.unwrap_or_default()).map_err(negative("TmpfsOptions.SizeBytes"))?;
    let mode = options.mode.map(u32::try_from).transpose().map_err(negative("TmpfsOptions.Mode"))?;
    // Docker's client sends neither when they were not given.
    Ok(MountSource::Tmpfs { bytes_max: (bytes > 0).then_some(bytes), mode: mode.filter(|mode| *mode > 0) })
}

/// Refuses by name what shoal's mounts cannot do.
fn refuse(mount: &DockerMount) -> Result<(), AcceptError> {
    let bind = mount.bind_options.clone().unwrap_or_default();
    let volume = mount.volume_options.clone().unwrap_or_default();
    let driver = volume.driver_config.unwrap_or_default();
    let tmpfs = mount.tmpfs_options.clone().unwrap_or_default();
    let private = matches!(bind.propagation, None | Some(Propagation::EMPTY | Propagation::RPRIVATE));
    let consistency = mount.consistency.as_deref().unwrap_or_default();
    let is = |kind| mount.typ == Some(kind);
    check(&[
        (is(MountType::CLUSTER), "--mount type=cluster", "Mounts.Type"),
        (is(MountType::IMAGE), "--mount type=image", "Mounts.Type"),
        (is(MountType::NPIPE), "--mount type=npipe", "Mounts.Type"),
        (!matches!(consistency, "" | "default"), "--mount consistency", "Mounts.Consistency"),
        (!private, "--mount bind-propagation besides rprivate", "BindOptions.Propagation"),
        (bind.non_recursive == Some(true), "--mount bind-recursive=disabled", "BindOptions.NonRecursive"),
        (bind.create_mountpoint == Some(true), "making the source of a bind mount", "BindOptions.CreateMountpoint"),
        (
            bind.read_only_non_recursive == Some(true),
            "--mount bind-recursive=writable",
            "BindOptions.ReadOnlyNonRecursive",
        ),
        (
            bind.read_only_force_recursive == Some(true),
            "--mount bind-recursive=readonly",
            "BindOptions.ReadOnlyForceRecursive",
        ),
        (volume.subpath.is_some_and(|path| !path.is_empty()), "--mount volume-subpath", "VolumeOptions.Subpath"),
        (
            !matches!(driver.name.as_deref().unwrap_or_default(), "" | "local"),
            "volume drivers besides local",
            "DriverConfig.Name",
        ),
        (driver.options.is_some_and(|options| !options.is_empty()), "--mount volume-opt", "DriverConfig.Options"),
        (some(&tmpfs.options), "--mount tmpfs-options", "TmpfsOptions.Options"),
        (mount.image_options.is_some(), "--mount image-subpath", "ImageOptions"),
    ])?;
    let misplaced = (mount.bind_options.is_some() && !is(MountType::BIND))
        || (mount.volume_options.is_some() && !is(MountType::VOLUME))
        || (mount.tmpfs_options.is_some() && !is(MountType::TMPFS));
    match misplaced {
        true => {
            Err(AcceptError::Invalid { field: "Mounts", reason: "it has options of another type of mount".to_owned() })
        }
        false => Ok(()),
    }
}

/// Shows one mount.
pub(super) fn show(mount: &Mount) -> DockerMount {
    let shown = DockerMount {
        target: Some(mount.target.clone()),
        read_only: mount.read_only.then_some(true),
        ..DockerMount::default()
    };
    match &mount.source {
        MountSource::Bind(path) => DockerMount { typ: Some(MountType::BIND), source: Some(path.clone()), ..shown },
        MountSource::Volume { name, no_copy, labels } => {
            let options = MountVolumeOptions {
                no_copy: no_copy.then_some(true),
                labels: (!labels.is_empty())
                    .then(|| labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
                ..MountVolumeOptions::default()
            };
            DockerMount {
                typ: Some(MountType::VOLUME),
                source: name.as_ref().map(ToString::to_string),
                volume_options: (options != MountVolumeOptions::default()).then_some(options),
                ..shown
            }
        }
        MountSource::Tmpfs { bytes_max, mode } => {
            let options = MountTmpfsOptions {
                size_bytes: bytes_max.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
                mode: mode.map(i64::from),
                options: None,
            };
            DockerMount {
                typ: Some(MountType::TMPFS),
                tmpfs_options: (options != MountTmpfsOptions::default()).then_some(options),
                ..shown
            }
        }
    }
}
