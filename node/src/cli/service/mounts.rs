//! Mounts as Docker's `--mount` takes them.

use bollard::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum as Propagation, MountTmpfsOptions, MountType,
    MountVolumeOptions, MountVolumeOptionsDriverConfig,
};

use super::fields::Fields;
use super::options::labels;
use crate::cli::words::parse_memory;

/// Reads Docker's `type=…,source=…,target=…` and options. What shoal does not have is sent on, so that the node that
/// is asked refuses it by its name.
pub(super) fn parse(text: &str) -> anyhow::Result<Mount> {
    let mut mount = Mount { typ: Some(MountType::VOLUME), ..Mount::default() };
    let fields = Fields::new("--mount", text)?;
    for field in fields.each() {
        let given = || field.given();
        let wrong = || field.wrong();
        match field.key.as_str() {
            "type" => mount.typ = Some(kind(given()?).ok_or_else(wrong)?),
            "source" | "src" => mount.source = Some(given()?.to_owned()),
            "target" | "dst" | "destination" => mount.target = Some(given()?.to_owned()),
            "readonly" | "ro" => mount.read_only = Some(field.flag()?),
            "consistency" => mount.consistency = Some(given()?.to_owned()),
            "bind-propagation" => {
                bind(&mut mount).propagation = Some(given()?.parse::<Propagation>().map_err(|_| wrong())?)
            }
            "bind-nonrecursive" => bind(&mut mount).non_recursive = Some(field.flag()?),
            "bind-recursive" => match given()? {
                "enabled" => {}
                "disabled" => bind(&mut mount).non_recursive = Some(true),
                "writable" => bind(&mut mount).read_only_non_recursive = Some(true),
                "readonly" => bind(&mut mount).read_only_force_recursive = Some(true),
                _ => return Err(wrong()),
            },
            "volume-nocopy" => volume(&mut mount).no_copy = Some(field.flag()?),
            "volume-subpath" => volume(&mut mount).subpath = Some(given()?.to_owned()),
            "volume-label" => volume(&mut mount).labels.get_or_insert_default().extend(labels(&[given()?.to_owned()])),
            "volume-driver" => driver(&mut mount).name = Some(given()?.to_owned()),
            "volume-opt" => driver(&mut mount).options.get_or_insert_default().extend(labels(&[given()?.to_owned()])),
            "tmpfs-size" => tmpfs(&mut mount).size_bytes = Some(parse_memory(given()?).map_err(anyhow::Error::msg)?),
            "tmpfs-mode" => tmpfs(&mut mount).mode = Some(i64::from_str_radix(given()?, 8).map_err(|_| wrong())?),
            _ => return Err(field.unknown()),
        }
    }
    anyhow::ensure!(mount.target.is_some(), fields.wrong("it has no target, add target=/PATH"));
    Ok(mount)
}

fn kind(text: &str) -> Option<MountType> {
    match text.to_ascii_lowercase().as_str() {
        "bind" => Some(MountType::BIND),
        "volume" => Some(MountType::VOLUME),
        "tmpfs" => Some(MountType::TMPFS),
        "npipe" => Some(MountType::NPIPE),
        "cluster" => Some(MountType::CLUSTER),
        "image" => Some(MountType::IMAGE),
        _ => None,
    }
}

fn bind(mount: &mut Mount) -> &mut MountBindOptions {
    mount.bind_options.get_or_insert_default()
}

fn volume(mount: &mut Mount) -> &mut MountVolumeOptions {
    mount.volume_options.get_or_insert_default()
}

fn driver(mount: &mut Mount) -> &mut MountVolumeOptionsDriverConfig {
    volume(mount).driver_config.get_or_insert_default()
}

fn tmpfs(mount: &mut Mount) -> &mut MountTmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_docker_reads_them() {
        let read = parse("type=bind,\"source=/a,b\",target=/x,readonly").unwrap();
        assert_eq!((read.source.as_deref(), read.target.as_deref()), (Some("/a,b"), Some("/x")));
        assert_eq!((read.typ, read.read_only), (Some(MountType::BIND), Some(true)));
        let read = parse("src=data,dst=/data,volume-nocopy=true,volume-label=a=b").unwrap();
        assert_eq!((read.typ, read.volume_options.as_ref().unwrap().no_copy), (Some(MountType::VOLUME), Some(true)));
        assert_eq!(read.volume_options.unwrap().labels.unwrap()["a"], "b");
        let read = parse("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0700").unwrap().tmpfs_options.unwrap();
        assert_eq!((read.size_bytes, read.mode), (Some(1 << 20), Some(0o700)));
        for bad in ["type=bind", "type=x,target=/a", "target=/a,nope=1", "target", "target=/a,\"b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
