//! What a demo makes outside of itself, written down so that any later one can take it away.
//!
//! Namespaces have fixed names; the directory and the ids of the nodes are recorded below `/run/shoal-demo`, which also
//! holds the lock that lets one demo run at a time. Removing is idempotent and removes only what a demo made.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MntFlags, umount2};

use super::lab;
use super::namespace::Namespace;
use super::process::Marks;

/// Where the record is. Only root can write there, so it can be believed.
const RECORD: &str = "/run/shoal-demo";
/// What the name of every demo's directory begins with.
const PREFIX: &str = "shoal-demo-";
/// The file in the demo's directory that lists the ids of its nodes, one per line.
pub(super) const NODES: &str = "nodes";

/// The record, locked: nobody else runs a demo.
#[derive(Debug)]
pub(super) struct Remains {
    _lock: File,
}

impl Remains {
    /// Takes the lock.
    ///
    /// # Errors
    /// Another demo runs, or this is not root.
    pub(super) fn claim() -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(RECORD)
            .with_context(|| format!("cannot make {RECORD}: run the demo as root"))?;
        let lock = File::options().create(true).truncate(false).write(true).open(Path::new(RECORD).join("lock"))?;
        lock.try_lock()
            .map_err(|_| anyhow::anyhow!("another demo runs on this machine: wait for its end, or stop it"))?;
        Ok(Self { _lock: lock })
    }

    /// Tells whether the last demo was to be kept.
    pub(super) fn is_kept(&self) -> bool {
        Path::new(RECORD).join("kept").exists()
    }

    /// Notes that this demo is to be kept.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        fs::write(Path::new(RECORD).join("kept"), "")
    }

    /// Makes a directory for a demo, that only root can read, and notes it.
    pub(super) fn make_directory(&mut self) -> anyhow::Result<PathBuf> {
        let template = std::env::temp_dir().join(format!("{PREFIX}XXXXXX"));
        let made = nix::unistd::mkdtemp(&template).with_context(|| format!("cannot make {}", template.display()))?;
        let noted = made.to_str().context("TMPDIR must be plain text")?;
        fs::write(Path::new(RECORD).join("directory"), noted)?;
        Ok(made)
    }

    /// Removes all that a demo made: processes, cgroups, namespaces, mounts, files. Says whether there was anything.
    ///
    /// # Errors
    /// What cannot be removed. The rest is, and trying again is harmless.
    pub(super) fn clear(&mut self) -> anyhow::Result<bool> {
        let directory = self.directory();
        let spaces = lab::namespaces();
        let marks = Marks {
            namespaces: spaces.iter().filter_map(Namespace::number).collect(),
            nodes: directory.as_deref().map(nodes).unwrap_or_default(),
        };
        let found = directory.is_some() || !marks.namespaces.is_empty();
        let killed = marks.kill_all();
        marks.remove_cgroups();
        for namespace in &spaces {
            namespace.remove().context("cannot remove a network namespace")?;
        }
        if let Some(directory) = &directory {
            unmount_below(directory);
            remove_directory(directory)?;
        }
        killed?;
        for note in ["directory", "kept"] {
            remove_file(&Path::new(RECORD).join(note))?;
        }
        Ok(found)
    }

    /// Returns the directory that was noted, if it is one that a demo made.
    fn directory(&self) -> Option<PathBuf> {
        let noted = fs::read_to_string(Path::new(RECORD).join("directory")).ok()?;
        let path = PathBuf::from(noted);
        let named = path.file_name()?.to_str()?.starts_with(PREFIX) && path.is_absolute();
        (named && fs::symlink_metadata(&path).ok()?.is_dir()).then_some(path)
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        let record = Path::new(RECORD);
        if !self.is_kept() && !record.join("directory").exists() {
            // Removed while the lock is held: whoever waits for it opens a new one.
            let _ = fs::remove_file(record.join("lock"));
            let _ = fs::remove_dir(record);
        }
    }
}

/// Returns the ids of the nodes that a demo in this directory had.
pub(super) fn nodes(directory: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(directory.join(NODES)).unwrap_or_default();
    // An id is a word of letters and digits: what else were in the file must not become a path.
    let plain = |line: &&str| !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text.lines().filter(plain).map(str::to_owned).collect()
}

/// Detaches whatever is mounted below a directory.
fn unmount_below(directory: &Path) {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(directory)).collect();
    below.sort();
    for point in below.iter().rev() {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
}

/// Removes a directory in which the last processes may just be ending.
fn remove_directory(directory: &Path) -> anyhow::Result<()> {
    let mut last = Ok(());
    for _ in 0..20 {
        last = fs::remove_dir_all(directory);
        match &last {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    }
    last.with_context(|| format!("cannot remove {}", directory.display()))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
