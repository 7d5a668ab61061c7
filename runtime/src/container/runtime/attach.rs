//! The streams of a container's own process: its input and terminal, and copies of its output.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};
use tokio::net::unix::pipe;

use super::super::protocol::{Reply, Request, line};
use super::super::{RuntimeError, WindowSize, console};
use super::exec::{ExecOutput, connect, read_reply, receiver, sender, unexpected};
use super::{Handle, Runtime, io_error};

/// What waits for whoever reads a copy of a container's output, in bytes: beyond that he is let go. As much as the kernel allows
/// for a pipe without asking.
const TAP_BYTES: i32 = 1 << 20;
impl Runtime {
    /// Opens the input of a container that was made with `stdin`; with a terminal, that. Output is in the log.
    pub async fn attach(&self, id: &str) -> Result<pipe::Sender, RuntimeError> {
        let handle = self.found(id)?;
        let refused = |reason: String| RuntimeError::Shim { id: id.to_owned(), reason };
        let failed = io_error(format!("open the input of container {id}"));
        let asked = tokio::task::spawn_blocking(move || {
            let stream = connect(&handle)?;
            console::send(&stream, &line(&Request::Attach), &[])?;
            read_reply(&stream)
        });
        match asked.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok((Reply::Attached, Some(descriptor))) => sender(descriptor).map_err(failed),
            Ok((Reply::Refused(reason), _)) => Err(refused(reason)),
            Ok(_) => Err(refused("gave an answer to another question".to_owned())),
            Err(error) => Err(failed(error)),
        }
    }

    /// Reads what a container prints from now on, beside its log: output, and errors unless it has a terminal. Both end when it
    /// ends, or when it prints faster than they are read.
    pub async fn tap(&self, id: &str, terminal: bool) -> Result<(ExecOutput, Option<ExecOutput>), RuntimeError> {
        let handle = self.found(id)?;
        let failed = io_error(format!("read the output of container {id}"));
        let asked = tokio::task::spawn_blocking(move || tapped(&handle, terminal)).await;
        let (reply, out, err) = asked.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)?;
        match reply {
            Reply::Done => {
                let open = |end| receiver(end).map_err(io_error(format!("read the output of container {id}")));
                Ok((open(out)?, err.map(open).transpose()?))
            }
            reply => Err(unexpected(id, reply)),
        }
    }

    /// Lets a container's input end as soon as the attached have let go of it.
    pub async fn close_stdin(&self, id: &str) -> Result<(), RuntimeError> {
        self.done(id, Request::CloseStdin).await
    }

    /// Sets the size of a container's terminal.
    pub async fn resize(&self, id: &str, size: WindowSize) -> Result<(), RuntimeError> {
        self.done(id, Request::Resize(size)).await
    }
}

/// Asks for a copy of the output; returns the reading ends.
fn tapped(handle: &Handle, terminal: bool) -> io::Result<(Reply, OwnedFd, Option<OwnedFd>)> {
    let stream = connect(handle)?;
    let (out, out_end) = io::pipe()?;
    let (err, err_end) = io::pipe()?;
    for pipe in [out.as_fd(), err.as_fd()] {
        // A smaller one will do.
        let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(TAP_BYTES));
    }
    let ends = [out_end.as_fd(), err_end.as_fd()];
    console::send(&stream, &line(&Request::Tap), if terminal { &ends[..1] } else { &ends })?;
    let (reply, _) = read_reply(&stream)?;
    Ok((reply, out.into(), (!terminal).then_some(err.into())))
}
