//! The root file system: layers and a writable top joined by overlayfs, and the files in `/etc` that a node dictates.
//!
//! Runs in the shim, inside its private mount namespace and with the bundle as working directory. The image is
//! hostile: every path inside it is opened with `RESOLVE_IN_ROOT`, so that no symbolic link leads out of it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::bundle;
use super::protocol::Failure;
use super::{ContainerSpec, FailureKind};

/// Overlayfs' own limit.
pub(super) const LAYERS_MAX: usize = 500;

/// Largest file of an image that is read (`passwd`, `group`).
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Mounts the layers at `rootfs` in the bundle.
///
/// The layers get short relative names, so that 500 of them fit into the one page of mount options whatever their
/// real paths are, and no character in those needs escaping.
pub(super) fn mount_layers(layers: &[std::path::PathBuf]) -> Result<(), Failure> {
    let failed = Failure::doing(FailureKind::Rootfs, "prepare the directories of the root file system");
    for directory in [bundle::LAYERS, bundle::UPPER, bundle::WORK, bundle::ROOTFS] {
        bundle::create_private_dir(Path::new(directory)).map_err(&failed)?;
    }
    // The top's mode is that of the container's `/`: everybody may enter it.
    fs::set_permissions(bundle::UPPER, std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(&failed)?;
    let mut lower = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        // Overlayfs refuses one directory twice; what a lower copy gives, the higher one gives again.
        if layers[index + 1..].contains(layer) {
            continue;
        }
        if !layer.is_dir() {
            let message = format!("layer {} is missing; load the image again", layer.display());
            return Err(Failure::new(FailureKind::Rootfs, message));
        }
        let name = format!("{}/{index}", bundle::LAYERS);
        symlink(layer, &name).map_err(&failed)?;
        lower.insert(0, name);
    }
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), bundle::UPPER, bundle::WORK);
    mount_overlay(&options).map_err(|errno| {
        let hint = match errno {
            Errno::EINVAL => "; is the data directory itself on overlayfs? put it on ext4, xfs, btrfs or tmpfs",
            Errno::ENODEV => "; the kernel has no overlayfs: modprobe overlay",
            _ => "",
        };
        Failure::new(FailureKind::Rootfs, format!("cannot mount the layers with overlayfs: {errno}{hint}"))
    })
}

/// `volatile` spares syncing what no restart will read again; `index=off` lets containers share layers. Both are left
/// out where the kernel does not know them. Devices in the image stay dead: those of `/dev` are mounted apart.
fn mount_overlay(options: &str) -> nix::Result<()> {
    for extra in [",index=off,volatile", ",index=off", ""] {
        let data = format!("{options}{extra}");
        match mount(Some("overlay"), bundle::ROOTFS, Some("overlay"), MsFlags::MS_NODEV, Some(data.as_str())) {
            Err(Errno::EINVAL) if !extra.is_empty() => {}
            result => return result,
        }
    }
    Err(Errno::EINVAL)
}

/// Detaches the root file system. Harmless if it was never mounted.
pub(super) fn unmount() {
    let _ = umount2(bundle::ROOTFS, MntFlags::MNT_DETACH);
}

/// Writes what the node dictates into `/etc`: names, resolvers, hosts.
pub(super) fn write_etc(root: &Root, spec: &ContainerSpec, hostname: &str) -> Result<(), Failure> {
    let failed = Failure::doing(FailureKind::Rootfs, "write /etc in the container");
    root.make_dir("/etc").map_err(io::Error::from).map_err(&failed)?;
    root.replace_file("/etc", "hostname", &format!("{hostname}\n")).map_err(&failed)?;
    root.replace_file("/etc", "resolv.conf", &spec.resolv_conf).map_err(&failed)?;
    root.replace_file("/etc", "hosts", &hosts_file(&spec.hosts)).map_err(&failed)
}

fn hosts_file(hosts: &[(IpAddr, String)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (address, name) in hosts {
        writeln!(text, "{address}\t{name}").expect("writing to a string cannot fail");
    }
    text
}

/// A container's root directory, opened so that nothing inside can lead outside.
pub(super) struct Root(OwnedFd);

impl Root {
    pub(super) fn open(path: &str) -> io::Result<Self> {
        let directory = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
        Ok(Self(directory.into()))
    }

    fn open_inside(&self, at: BorrowedFd<'_>, path: &str, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        // An absolute path, and every `..` above the top, means the top.
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        openat2(at, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve))
    }

    fn open_dir(&self, path: &str) -> nix::Result<OwnedFd> {
        self.open_inside(self.0.as_fd(), path, OFlag::O_DIRECTORY | OFlag::O_RDONLY, Mode::empty())
    }

    /// Opens a directory; `None` if there is none of that name.
    pub(super) fn directory(&self, path: &str) -> Option<OwnedFd> {
        self.open_dir(path).ok()
    }

    /// Makes a directory and those above it, mode 755, where they are missing.
    pub(super) fn make_dir(&self, path: &str) -> nix::Result<()> {
        let mut reached = String::new();
        for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
            let parent = if reached.is_empty() { "/".to_owned() } else { reached.clone() };
            reached = format!("{reached}/{name}");
            match self.open_dir(&reached) {
                Err(Errno::ENOENT) => {
                    let mode = Mode::from_bits_truncate(0o755);
                    match mkdirat(self.open_dir(&parent)?, name, mode) {
                        Ok(()) => {}
                        // A symbolic link to nowhere.
                        Err(Errno::EEXIST) => return Err(Errno::ENOTDIR),
                        Err(errno) => return Err(errno),
                    }
                }
                Err(errno) => return Err(errno),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Reads a regular file as text; a file that is missing, special or too large reads as empty.
    pub(super) fn read_text(&self, path: &str) -> String {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let Ok(file) = self.open_inside(self.0.as_fd(), path, flags, Mode::empty()).map(File::from) else {
            return String::new();
        };
        let regular = file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= FILE_BYTES_MAX);
        let mut bytes = Vec::new();
        if !regular || file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).is_err() {
            return String::new();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Puts a new file in place of whatever has this name: the image's may be a symbolic link.
    fn replace_file(&self, directory: &str, name: &str, contents: &str) -> io::Result<()> {
        let directory = self.open_dir(directory)?;
        match unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let file = self.open_inside(directory.as_fd(), name, flags, Mode::from_bits_truncate(0o644))?;
        File::from(file).write_all(contents.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_inside_an_image_cannot_lead_out_of_it() {
        let top = tempfile::tempdir().unwrap();
        let (inside, outside) = (top.path().join("root"), top.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("passwd"), "secret").unwrap();
        fs::write(outside.join("hosts"), "kept").unwrap();
        symlink(&outside, inside.join("absolute")).unwrap();
        symlink("../outside", inside.join("relative")).unwrap();
        fs::create_dir(inside.join("etc")).unwrap();
        symlink(outside.join("hosts"), inside.join("etc/hosts")).unwrap();
        let root = Root::open(inside.to_str().unwrap()).unwrap();
        assert_eq!(root.read_text("/absolute/passwd"), "");
        assert_eq!(root.read_text("/relative/passwd"), "");
        assert!(root.make_dir("/relative/new").is_err());
        root.make_dir("/../../a/./b/../c").unwrap();
        assert!(inside.join("a/c").is_dir());
        root.replace_file("/etc", "hosts", "new").unwrap();
        assert_eq!(fs::read_to_string(outside.join("hosts")).unwrap(), "kept");
        assert_eq!(fs::read_to_string(inside.join("etc/hosts")).unwrap(), "new");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 2);
    }

    #[test]
    fn a_fifo_in_place_of_passwd_does_not_hang_the_shim() {
        let top = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&top.path().join("passwd"), Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(Root::open(top.path().to_str().unwrap()).unwrap().read_text("/passwd"), "");
    }
}
