//! Filling an empty volume with what the image has at its target, as Docker does at first use.
//!
//! Input: an open directory of the container's root and the volume's directory. Output: the same files there, with
//! owners, modes and times. The image is hostile but nothing of it runs yet, so that what is looked at stays as it is;
//! symbolic links are copied and never followed.

use std::fs::{self, File, FileTimes, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// Most files and directories that are copied.
const ENTRIES_MAX: usize = 1_000_000;

/// Copies a directory's contents and its own owner and mode into `volume` if that is empty; otherwise does nothing.
pub(super) fn fill(source: &OwnedFd, volume: &Path) -> io::Result<()> {
    if fs::read_dir(volume)?.next().is_some() {
        return Ok(());
    }
    let top = PathBuf::from(format!("/proc/self/fd/{}/.", source.as_raw_fd()));
    let mut pending = vec![(top, volume.to_path_buf())];
    let mut copied = 0;
    // A directory gets its times and mode when its entries are there.
    let mut directories = Vec::new();
    while let Some((from, to)) = pending.pop() {
        for entry in fs::read_dir(&from)? {
            copied += 1;
            if copied > ENTRIES_MAX {
                return Err(io::Error::other(format!("more than {ENTRIES_MAX} files to copy into the volume")));
            }
            let entry = entry?;
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                fs::create_dir(&to)?;
                pending.push((from, to));
            } else {
                copy_entry(&from, &to, &metadata)?;
            }
        }
        directories.push((fs::metadata(&from)?, to));
    }
    directories.iter().rev().try_for_each(|(metadata, to)| like(to, metadata))
}

fn copy_entry(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        return lchown(to, Some(metadata.uid()), Some(metadata.gid()));
    }
    if kind.is_file() {
        fs::copy(from, to)?;
        return like(to, metadata);
    }
    if kind.is_fifo() {
        mkfifo(to, Mode::from_bits_truncate(0o600))?;
        chown(to, Some(metadata.uid()), Some(metadata.gid()))?;
        return fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777));
    }
    // Sockets mean nothing to others, and devices have no place in a volume.
    Ok(())
}

fn like(to: &Path, metadata: &Metadata) -> io::Result<()> {
    chown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    // After the owner: changing that clears the set-id bits.
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    let times = FileTimes::new().set_accessed(metadata.accessed()?).set_modified(metadata.modified()?);
    File::open(to)?.set_times(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_volume_is_filled_once_and_links_are_not_followed() {
        let top = tempfile::tempdir().unwrap();
        let (image, volume, outside) = (top.path().join("image"), top.path().join("volume"), top.path().join("out"));
        for directory in [&image.join("deep/er"), &volume, &outside] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(outside.join("secret"), "secret").unwrap();
        fs::write(image.join("deep/er/file"), "text").unwrap();
        fs::set_permissions(image.join("deep"), fs::Permissions::from_mode(0o711)).unwrap();
        symlink(&outside, image.join("link")).unwrap();
        let open = || OwnedFd::from(File::open(&image).unwrap());
        fill(&open(), &volume).unwrap();
        assert_eq!(fs::read_to_string(volume.join("deep/er/file")).unwrap(), "text");
        assert_eq!(fs::metadata(volume.join("deep")).unwrap().mode() & 0o7777, 0o711);
        assert_eq!(fs::read_link(volume.join("link")).unwrap(), outside);
        fs::remove_file(volume.join("deep/er/file")).unwrap();
        fill(&open(), &volume).unwrap();
        assert!(!volume.join("deep/er/file").exists(), "what is not empty is left alone");
    }
}
