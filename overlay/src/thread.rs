//! Threads with a small runtime of their own, which report whether they could begin.
//!
//! The runtime is made and dropped on its thread, since dropping one inside another is a panic.

use std::future::Future;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::runtime;

use crate::OverlayError;

/// What a new thread says once: that it has begun, or why it could not.
pub(crate) struct Ready(mpsc::Sender<Result<(), OverlayError>>);

/// A thread that is waited for when this is dropped.
#[derive(Debug)]
pub(crate) struct Joined(Option<JoinHandle<()>>);

impl Ready {
    pub(crate) fn say(self, result: Result<(), OverlayError>) {
        // Whoever started the thread waits for this, so the receiver is there.
        let _ = self.0.send(result);
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic there has been printed already, and there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

/// Starts a thread in the network namespace of this one and returns when it says that it is ready.
pub(crate) fn start<W, F>(name: &str, work: W) -> Result<Joined, OverlayError>
where
    W: FnOnce(Ready) -> F + Send + 'static,
    F: Future<Output = ()>,
{
    let (ready, started) = mpsc::channel();
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(async move { work(Ready(ready)).await }),
            Err(error) => Ready(ready).say(Err(OverlayError::Thread(error))),
        })
        .map_err(OverlayError::Thread)?;
    let joined = Joined(Some(thread));
    let ended = || OverlayError::Thread(std::io::Error::other("the thread ended before it was ready"));
    started.recv().unwrap_or_else(|_| Err(ended()))?;
    Ok(joined)
}
