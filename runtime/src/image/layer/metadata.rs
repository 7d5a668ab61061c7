//! Metadata: owner, mode, attributes and time of what a layer holds.
//!
//! Input: a tar entry, or a directory of a lower layer. Output: the same on an open file. Attributes are limited to
//! those that an image may set: `user.*` and file capabilities; overlayfs's own are never taken from an archive.

use std::{io, os::fd::AsFd};

use rustix::{
    fs::{
        Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fsetxattr,
        fstat,
    },
    io::Errno,
};

use crate::image::tar_stream::Entry;

const XATTR_BYTES_MAX: usize = 64 << 10;

/// Returns the times to set: the access time stays as it is.
pub(super) fn times(seconds: i64, nanoseconds: u32) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}

/// Returns the permission bits as the system wants them.
pub(super) fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits & 0o7777)
}

/// Sets owner, mode and attributes, in the order in which none undoes another: a new owner clears set-user-id bits
/// and capabilities.
pub(super) fn apply(file: impl AsFd, entry: &Entry) -> io::Result<()> {
    fchown(&file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    fchmod(&file, mode(entry.mode))?;
    for (name, value) in &entry.xattrs {
        if is_allowed(name) {
            set_xattr(&file, name, value)?;
        }
    }
    Ok(())
}

/// Makes `to` like `from` in owner, mode, attributes and time.
pub(super) fn copy(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let stat = fstat(&from)?;
    fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(&to, mode(stat.st_mode))?;
    let mut names = vec![0u8; XATTR_BYTES_MAX];
    let count = match flistxattr(&from, &mut names[..]) {
        Ok(count) => count,
        Err(Errno::NOTSUP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    for name in names[..count].split(|byte| *byte == 0).filter(|name| is_allowed(name)) {
        let mut value = vec![0u8; XATTR_BYTES_MAX];
        let count = fgetxattr(&from, name, &mut value[..])?;
        set_xattr(&to, name, &value[..count])?;
    }
    Ok(rustix::fs::futimens(&to, &times(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)))?)
}

fn is_allowed(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// `user` attributes are dropped where the file system, or the kind of file, has none; capabilities never are, without
/// them a program would not work.
fn set_xattr(file: impl AsFd, name: &[u8], value: &[u8]) -> io::Result<()> {
    match fsetxattr(file, name, value, XattrFlags::empty()) {
        Err(Errno::NOTSUP | Errno::PERM) if name.starts_with(b"user.") => Ok(()),
        result => Ok(result?),
    }
}
