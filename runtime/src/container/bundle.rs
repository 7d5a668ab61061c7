//! The bundle: the directory that holds all that a container is on disk.
//!
//! `spec.json` (the daemon's order), `exit.json` (the shim's last word), `socket`, `log.json`, `upper` and `work`
//! (what the container wrote), `rootfs`, `cgroups` and `runtime` (the driver's own state): empty
//! mount points on the host; `l/` (short names for the layers). Everything is replaced atomically or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(super) const SPEC: &str = "spec.json";
pub(super) const EXIT: &str = "exit.json";
pub(super) const SOCKET: &str = "socket";
pub(super) const LOG: &str = "log.json";
pub(super) const SHIM_LOG: &str = "shim.log";
pub(super) const ROOTFS: &str = "rootfs";
pub(super) const UPPER: &str = "upper";
pub(super) const WORK: &str = "work";
pub(super) const LAYERS: &str = "l";
pub(super) const CGROUPS: &str = "cgroups";
pub(super) const RESERVE: &str = "reserve";
pub(super) const CONFIG: &str = "config.json";
pub(super) const CONSOLE: &str = "console";
pub(super) const EXEC_CONSOLE: &str = "exec-console";
pub(super) const EXEC_PROCESS: &str = "exec.json";
pub(super) const LIBCONTAINER: &str = "runtime";

/// Largest of our own JSON files that is read back.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Makes a directory that only root may enter; fails if it exists.
pub(super) fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// Writes a file so that a reader finds it whole or not at all. It is not synced: nothing of a container outlives a crash
/// of the host, and one whose end is not known then has ended with the host.
pub(super) fn write<T: Serialize>(directory: &Path, name: &str, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let temporary = directory.join(format!("{name}.new"));
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(&bytes)?;
    fs::rename(&temporary, directory.join(name))
}

/// Reads a file that [`write()`] wrote. A file that is not ours to believe is an error.
pub(super) fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> io::Result<T> {
    let path = directory.join(name);
    if fs::metadata(&path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{} is too large to be ours", path.display())));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Removes a tree of any depth in constant stack and with one open directory: a container can nest directories deeper
/// than recursion could follow, so each one is moved up to the top before it is emptied.
pub(super) fn remove_tree(root: &Path) -> io::Result<()> {
    match fs::symlink_metadata(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_dir() => return fs::remove_file(root),
        Ok(_) => {}
    }
    // Unlike those of an earlier, interrupted removal.
    let prefix = format!(".removing-{}-", SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos()));
    let mut pending: Vec<PathBuf> = vec![root.to_path_buf()];
    let mut moved: u64 = 0;
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
            } else if entry.file_name().to_string_lossy().starts_with(&prefix) {
                // Moved here by ourselves while the top is being read.
            } else if fs::remove_dir(entry.path()).is_err() {
                let flat = root.join(format!("{prefix}{moved}"));
                moved += 1;
                fs::rename(entry.path(), &flat)?;
                pending.push(flat);
            }
        }
        if directory != root {
            fs::remove_dir(&directory)?;
        }
    }
    fs::remove_dir(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_a_path_can_name_is_removed() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("bundle");
        let outside = top.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        fs::create_dir(&root).unwrap();
        // Built from the inside out, as no path reaches the bottom: each round wraps what was there.
        for depth in 0..1_500 {
            let wrap = root.join("wrap");
            fs::create_dir(&wrap).unwrap();
            fs::write(wrap.join("file"), "x").unwrap();
            if depth > 0 {
                fs::rename(root.join("deep"), wrap.join("deep")).unwrap();
            }
            fs::rename(&wrap, root.join("deep")).unwrap();
        }
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        remove_tree(&root).unwrap();
        assert!(!root.exists());
        assert!(outside.join("kept").exists());
        remove_tree(&root).unwrap();
    }

    #[test]
    fn a_file_is_read_back_and_its_draft_is_gone() {
        let top = tempfile::tempdir().unwrap();
        write(top.path(), "value.json", &vec![1, 2, 3]).unwrap();
        assert_eq!(read::<Vec<i32>>(top.path(), "value.json").unwrap(), [1, 2, 3]);
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1);
    }
}
