//! What daemon and shim say to each other over the bundle's socket: one JSON value per line.
//!
//! The shim greets every connection with a [`Greeting`]; a client may then send [`Request`]s and gets one [`Reply`]
//! each. The end of a connection means that the shim is gone, and that whatever it knew is in the bundle.

use serde::{Deserialize, Serialize};

use super::{ExecSpec, FailureKind, Stats, WindowSize};

/// Longest line either side accepts, in bytes: an exec's arguments and environment are the longest.
pub(super) const LINE_BYTES_MAX: usize = 256 * 1024;

/// The state of the container when a connection is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Greeting {
    Created { pid: i32 },
    Running { pid: i32, started_at_ms: u64 },
    Failed(Failure),
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    Start,
    Signal(i32),
    /// Comes with three descriptors for the standard streams, unless it is to have a terminal.
    Exec {
        spec: ExecSpec,
        size: Option<WindowSize>,
    },
    /// Signals a command that was begun by [`Request::Exec`] on any connection.
    SignalExec {
        pid: i32,
        signal: i32,
    },
    /// Asks for the writing end of the container's standard input, or its terminal.
    Attach,
    /// Comes with the writing ends of two pipes, for output and errors, or of one where there is a terminal: what the container
    /// prints from then on goes there too. A pipe that is full is closed, and its line of output is in the log alone.
    Tap,
    /// Closes the shim's own end of standard input, so that it ends as those handed out are closed.
    CloseStdin,
    Resize(WindowSize),
    Stats,
    Processes,
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    Started {
        started_at_ms: u64,
    },
    Done,
    Refused(String),
    Failed(Failure),
    /// Comes with the terminal's descriptor if it has one. [`Reply::ExecEnded`] follows on the same connection.
    Executed {
        pid: i32,
    },
    ExecEnded {
        code: i32,
        signal: Option<i32>,
    },
    /// Comes with a descriptor.
    Attached,
    Stats(Box<Stats>),
    Processes(Vec<i32>),
}

/// What kept the container from starting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(super) fn host(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Host, message)
    }

    /// Returns a closure that names what failed, for `map_err`.
    pub(super) fn doing<E: std::fmt::Display>(kind: FailureKind, doing: &str) -> impl Fn(E) -> Self {
        move |error| Self::new(kind, format!("cannot {doing}: {error}"))
    }
}

/// Renders a message as one line.
pub(super) fn line<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(message).expect("messages are plain enums, strings and integers");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_line_breaks_stays_on_one_line() {
        let failure = Greeting::Failed(Failure::host("one\ntwo"));
        let bytes = line(&failure);
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(serde_json::from_slice::<Greeting>(&bytes).unwrap(), failure);
    }
}
