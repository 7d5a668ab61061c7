//! Network namespaces by name: made, entered and removed without the `ip` program, and seen by it.
//!
//! A namespace is entered only by a thread of its own, for a thread's namespace is the thread's; what that thread
//! spawns starts inside.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where `ip netns` looks for namespaces.
const DIRECTORY: &str = "/run/netns";

/// A network namespace that has a name.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    path: PathBuf,
}

impl Namespace {
    /// Names a namespace, which may not be there.
    pub(super) fn named(name: &str) -> Self {
        Self { path: Path::new(DIRECTORY).join(name) }
    }

    /// Makes it, new and empty; an error if there is one of this name.
    pub(super) fn make(&self) -> io::Result<()> {
        fs::create_dir_all(DIRECTORY)?;
        File::options().write(true).create_new(true).open(&self.path)?;
        let path = self.path.clone();
        on_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        })?
    }

    /// Removes its name; it goes when the last process in it ends. Harmless if it is not there.
    pub(super) fn remove(&self) -> io::Result<()> {
        // Several mounts can lie on one another after a demo that was killed.
        while umount2(&self.path, MntFlags::MNT_DETACH).is_ok() {}
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Returns the number by which the kernel knows it, if it is there: equal numbers, equal namespaces.
    pub(super) fn number(&self) -> Option<u64> {
        fs::metadata(&self.path).ok().map(|metadata| metadata.ino())
    }

    /// Opens it, to pass it to the kernel.
    pub(super) fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Runs `work` on a thread inside it, and waits for the end.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let file = self.open()?;
        on_thread(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?
    }
}

/// Runs `work` on a thread inside the network and the files of the process `pid`, and waits for the end.
pub(super) fn inside_process<T: Send + 'static>(pid: i32, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let network = File::open(format!("/proc/{pid}/ns/net"))?;
    let files = File::open(format!("/proc/{pid}/ns/mnt"))?;
    on_thread(move || {
        setns(network.as_fd(), CloneFlags::CLONE_NEWNET)?;
        // A mount namespace is entered only by a thread that shares its working directory with no other.
        unshare(CloneFlags::CLONE_FS)?;
        setns(files.as_fd(), CloneFlags::CLONE_NEWNS)?;
        Ok(work())
    })?
}

/// Runs `work` on a thread of its own, whose namespaces are thrown away with it.
pub(super) fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let thread = thread::Builder::new().name("demo-namespace".to_owned()).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("the work inside a namespace panicked"))
}
