//! The report pipe: how a starting process and libcontainer tell the shim why it could not run.
//!
//! Input: failures from our own code inside the container, error events from libcontainer, in whichever process they
//! happen. Output: the best reason known, as a [`Failure`]. The pipe ends when the command has been executed.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, span};

use super::protocol::Failure;

/// Most that is read from the pipe.
const REPORT_BYTES_MAX: u64 = 64 * 1024;

/// Most of libcontainer's own words in an error message.
const TRACE_BYTES_MAX: usize = 600;

/// The write end: in the shim while it creates, in a new process until it executes its command.
/// Global because libcontainer clones executors and emits events in processes of its own.
static WRITE_END: AtomicI32 = AtomicI32::new(NO_PIPE);

const NO_PIPE: RawFd = -1;

/// The read end.
pub(super) struct ReportPipe(File);

/// The write end as long as the shim itself has it.
pub(super) struct Reporting(OwnedFd);

impl Drop for Reporting {
    fn drop(&mut self) {
        let _ = self.0.as_raw_fd();
        WRITE_END.store(NO_PIPE, Ordering::Relaxed);
    }
}

/// One line on the pipe.
#[derive(Serialize, Deserialize)]
enum Report {
    Failure(Failure),
    Trace(String),
}

impl ReportPipe {
    /// Opens a pipe that processes forked from now on report to, until the second value is dropped.
    pub(super) fn open() -> io::Result<(Self, Reporting)> {
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Set once per shim; libcontainer's errors name no causes, its events do.
        let _ = tracing::subscriber::set_global_default(Tracer);
        WRITE_END.store(write_end.as_raw_fd(), Ordering::Relaxed);
        Ok((Self(File::from(read_end)), Reporting(write_end)))
    }

    /// Waits until the command has been executed; an error is why it was not.
    pub(super) fn executed(&mut self) -> Result<(), Failure> {
        // The pipe does not block for its writers; this reader wants to wait for its end.
        let _ = nix::fcntl::fcntl(&self.0, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()));
        match self.read().0 {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Puts the best reason known into words: what our own code said, else libcontainer's events, else its error.
    pub(super) fn explain(&mut self, error: &dyn Error) -> Failure {
        let (failure, trace) = self.read();
        failure.unwrap_or_else(|| {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                let _ = write!(text, ": {cause}");
                source = cause.source();
            }
            let trace = if trace.is_empty() { text } else { trace };
            Failure::host(format!("cannot create the container: {trace}"))
        })
    }

    fn read(&mut self) -> (Option<Failure>, String) {
        let mut bytes = Vec::new();
        // A pipe that would block has told all it will.
        let _ = (&mut self.0).take(REPORT_BYTES_MAX).read_to_end(&mut bytes);
        let mut trace = String::new();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(Report::Failure(failure)) => return (Some(failure), trace),
                Ok(Report::Trace(text)) if trace.len() + text.len() < TRACE_BYTES_MAX => {
                    let _ = write!(trace, "{}{text}", if trace.is_empty() { "" } else { "; " });
                }
                Ok(Report::Trace(_)) | Err(_) => {}
            }
        }
        (None, trace)
    }
}

/// Tells the shim why this process cannot run. Returns the same in words.
pub(super) fn fail(failure: Failure) -> String {
    let message = failure.message.clone();
    write(&Report::Failure(failure));
    message
}

/// Lets go of the pipe in a process that goes on without executing anything.
#[expect(unsafe_code, reason = "a descriptor inherited over fork has no owner to borrow from")]
pub(super) fn close_inherited() {
    // SAFETY: the descriptor is not owned by any value of this process, which is a fork and never returns to them.
    unsafe { libc::close(WRITE_END.swap(NO_PIPE, Ordering::Relaxed)) };
}

#[expect(unsafe_code, reason = "a descriptor inherited over fork has no owner to borrow from")]
fn write(report: &Report) {
    let Ok(mut bytes) = serde_json::to_vec(report) else { return };
    bytes.push(b'\n');
    // SAFETY: a pointer and its length; without a pipe the descriptor is -1, which the kernel refuses.
    unsafe { libc::write(WRITE_END.load(Ordering::Relaxed), bytes.as_ptr().cast(), bytes.len()) };
}

/// Hands libcontainer's error events to the report pipe, from whichever of its processes they come.
struct Tracer;

impl tracing::Subscriber for Tracer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Fields(String::new());
        event.record(&mut text);
        write(&Report::Trace(text.0));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let separator = if self.0.is_empty() { "" } else { ", " };
        let _ = match field.name() {
            "message" => write!(self.0, "{separator}{value:?}"),
            name => write!(self.0, "{separator}{name} {value:?}"),
        };
    }
}
