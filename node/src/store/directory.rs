//! The data directory of a node: made when it is missing, and held by one process at a time.
//!
//! Input: a path. Output: the directory, locked for as long as the value lives.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::{StoreError, file};

/// A data directory that this process alone uses. The lock ends with the value, or with the process.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: Flock<File>,
}

impl DataDirectory {
    /// Creates the directory if it is missing (mode 0700) and locks it. Fails at once if another process holds it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let failed = |source: io::Error| StoreError::Directory { path: path.clone(), source };
        file::create_directory(&path).map_err(failed)?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(file::SECRET_MODE)
            .open(path.join("lock"))
            .map_err(failed)?;
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(StoreError::Locked { path }),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    /// Returns where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
