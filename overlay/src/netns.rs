//! Work inside another network namespace.
//!
//! A thread's network namespace is the thread's own, so the work gets a thread of its own, which enters the namespace,
//! runs it on a small runtime and ends. A worker thread of a runtime never changes its namespace.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::thread;

use nix::sched::{CloneFlags, setns};
use tokio::runtime;
use tokio::sync::oneshot;

use crate::link::LinkError;

/// The network namespace of a process, held open.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
    pid: i32,
}

impl Namespace {
    /// Opens the network namespace of the process `pid`; refuses our own, where a task's link has no business.
    pub(crate) fn of_process(pid: i32) -> Result<Self, LinkError> {
        let failed = |source| LinkError::Namespace { pid, source };
        let file = File::open(format!("/proc/{pid}/ns/net")).map_err(failed)?;
        let own = File::open("/proc/thread-self/ns/net").and_then(|own| own.metadata()).map_err(failed)?;
        let theirs = file.metadata().map_err(failed)?;
        if (own.dev(), own.ino()) == (theirs.dev(), theirs.ino()) {
            return Err(LinkError::OwnNamespace { pid });
        }
        Ok(Self { file, pid })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Runs `work` on a thread inside this namespace and returns its result.
    pub(crate) async fn run<T, F, W>(&self, work: W) -> Result<T, LinkError>
    where
        W: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<T, LinkError>>,
        T: Send + 'static,
    {
        let pid = self.pid;
        let failed = move |source| LinkError::Namespace { pid, source };
        let file = self.file.try_clone().map_err(failed)?;
        let (send, receive) = oneshot::channel();
        thread::Builder::new()
            .name("shoal-netns".to_owned())
            .spawn(move || {
                let result = enter(&file).map_err(failed).and_then(|runtime| runtime.block_on(work()));
                // The receiver is gone only if the caller was cancelled; nobody wants the result then.
                let _ = send.send(result);
            })
            .map_err(failed)?;
        receive.await.map_err(|_| failed(io::Error::other("the work inside the namespace panicked")))?
    }
}

fn enter(namespace: &File) -> io::Result<runtime::Runtime> {
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
    runtime::Builder::new_current_thread().enable_io().build()
}
