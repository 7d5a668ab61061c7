//! The data directory of a node: made when it is missing, and held by one process at a time.
//!
//! Input: a path. Output: the directory, locked for as long as the value lives.
//!
//! A process that is killed gives its files back one after the other, while its threads end: the lock may be free
//! before the ports and the interface are. So the lock names its holder, and the next one waits until that is gone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{StoreError, file};

/// How long a process that was killed may take to end.
const LAST_BREATH: Duration = Duration::from_secs(3);

/// A data directory that this process alone uses. The lock ends with the value, or with the process.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: Flock<File>,
}

impl DataDirectory {
    /// Creates the directory if it is missing (mode 0700) and locks it, waiting up to 3 s for its last holder to end.
    ///
    /// # Errors
    /// It cannot be made, or another process holds it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let failed = |source: io::Error| StoreError::Directory { path: path.clone(), source };
        file::create_directory(&path).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(file::SECRET_MODE);
        let mut file = options.open(path.join("lock")).map_err(failed)?;
        let deadline = Instant::now() + LAST_BREATH;
        while Instant::now() < deadline {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if last_holder_is_gone(&lock) => {
                    sign(&lock).map_err(failed)?;
                    return Ok(Self { path, _lock: lock });
                }
                Ok(lock) => file = lock.unlock().map_err(|(_, errno)| failed(errno.into()))?,
                Err((held, Errno::EWOULDBLOCK)) => file = held,
                Err((_, errno)) => return Err(failed(errno.into())),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(StoreError::Locked { path })
    }

    /// Returns where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes into the lock who holds it.
fn sign(lock: &File) -> io::Result<()> {
    let pid = std::process::id();
    lock.set_len(0)?;
    lock.write_all_at(format!("{pid} {}", started(pid).unwrap_or_default()).as_bytes(), 0)
}

/// Tells whether the process that signed the lock has ended, with all its threads.
fn last_holder_is_gone(lock: &File) -> bool {
    let mut holder = [0; 64];
    // What cannot be read, or is something else, no holder wrote.
    let length = lock.read_at(&mut holder, 0).unwrap_or_default();
    let holder = str::from_utf8(&holder[..length]).unwrap_or_default();
    let signed = holder.split_once(' ').and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)));
    let Some((pid, start)): Option<(u32, u64)> = signed else { return true };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    pid == std::process::id() || started(pid) != Some(start) || (threads <= 1 && state(pid) == Some('Z'))
}

/// Returns when a process started, in clock ticks since boot: with its number, this names it.
fn started(pid: u32) -> Option<u64> {
    stat(pid)?.split(' ').nth(19)?.parse().ok()
}

/// Returns the state of a process by its letter in proc(5): `Z` when its first thread has ended.
fn state(pid: u32) -> Option<char> {
    stat(pid)?.chars().next()
}

/// Returns what the kernel says of a process, from its state on.
fn stat(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, parentheses too.
    Some(stat.rsplit_once(") ")?.1.to_owned())
}
