//! What the demo needs of this machine, looked at before anything is started.
//!
//! Output: a list of what is missing, each with how to get it. Nothing is left changed, except that the kernel may have
//! loaded a module of its own.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::statfs;

use super::namespace::on_thread;

/// Bytes of free disk that three nodes with one image take, with room to spare.
const DISK_BYTES_MIN: u64 = 2 << 30;

/// Returns what is missing to run nodes that keep their data below `directory`, in words; nothing if all is there.
pub(super) fn missing(directory: &Path) -> Vec<String> {
    if !nix::unistd::geteuid().is_root() {
        return vec!["root: the demo makes network namespaces and containers; run it with sudo, or as root".to_owned()];
    }
    let checks = [tun(), overlayfs(directory), cgroups(), namespaces(), bridge(), disk(directory)];
    checks.into_iter().filter_map(Result::err).collect()
}

fn tun() -> Result<(), String> {
    let path = Path::new("/dev/net/tun");
    if !path.exists() {
        load_module("tun");
    }
    let opened = File::options().read(true).write(true).open(path);
    opened.map(drop).map_err(|error| {
        format!(
            "/dev/net/tun ({error}): `modprobe tun` loads the driver; in a container, start it with \
             `--device /dev/net/tun --cap-add NET_ADMIN`"
        )
    })
}

fn overlayfs(directory: &Path) -> Result<(), String> {
    let known = || {
        fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.lines().any(|line| line.ends_with("\toverlay")))
    };
    if !known() {
        load_module("overlay");
    }
    if !known() {
        return Err("overlayfs: `modprobe overlay` loads it; the kernel needs CONFIG_OVERLAY_FS".to_owned());
    }
    let at = directory.display().to_string();
    try_overlay(directory).map_err(|error| {
        format!("overlayfs in {at} ({error}): set TMPDIR to a directory on a plain file system, such as ext4 or xfs")
    })
}

/// Mounts an overlay in `directory` for a moment, in a mount namespace that nobody else sees.
fn try_overlay(directory: &Path) -> io::Result<()> {
    let trial = directory.join("trial");
    for part in ["lower", "upper", "work", "merged"] {
        fs::create_dir_all(trial.join(part))?;
    }
    let at = trial.clone();
    let tried = on_thread(move || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let path = |part| at.join(part).display().to_string();
        let options = format!("lowerdir={},upperdir={},workdir={}", path("lower"), path("upper"), path("work"));
        mount(Some("overlay"), &at.join("merged"), Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
        Ok(())
    });
    fs::remove_dir_all(&trial)?;
    tried?
}

fn cgroups() -> Result<(), String> {
    let writable = || !super::process::cgroup_mounts().is_empty();
    let mounted = writable() && nix::unistd::access("/sys/fs/cgroup", nix::unistd::AccessFlags::W_OK).is_ok();
    mounted.then_some(()).ok_or_else(|| {
        "cgroups: /sys/fs/cgroup must be mounted and writable; `mount -t cgroup2 cgroup2 /sys/fs/cgroup`, or in a \
         container start it with `--privileged`"
            .to_owned()
    })
}

fn namespaces() -> Result<(), String> {
    let made = on_thread(|| unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS));
    match made {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!(
            "network namespaces ({error}): the kernel needs CONFIG_NET_NS, and in a container `--privileged`"
        )),
        Err(error) => Err(format!("threads ({error}): raise the limit of processes")),
    }
}

fn bridge() -> Result<(), String> {
    for module in ["veth", "bridge"] {
        if !Path::new("/sys/module").join(module).exists() {
            // Built in, or loaded by the kernel itself when first used; making the hosts tells for certain.
            load_module(module);
        }
    }
    Ok(())
}

fn disk(directory: &Path) -> Result<(), String> {
    let Ok(status) = statfs(directory) else { return Ok(()) };
    let free = status.blocks_available().saturating_mul(u64::try_from(status.block_size()).unwrap_or(0));
    (free >= DISK_BYTES_MIN).then_some(()).ok_or_else(|| {
        format!(
            "disk: {} has {} MiB free, 2048 are needed; set TMPDIR to another directory",
            directory.display(),
            free >> 20
        )
    })
}

/// Asks the kernel to load a module; whether that helped is seen afterwards.
fn load_module(name: &str) {
    let _ = Command::new("modprobe").arg(name).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
