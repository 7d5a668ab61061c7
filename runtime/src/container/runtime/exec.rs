//! What the daemon does with a running container: further commands, its counters, its log.
//!
//! Every call is a connection of its own to the container's shim, so that none waits for another.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::super::protocol::{Failure, Reply, Request, line};
use super::super::{
    ContainerProcess, ContainerSpec, ContainerState, ExecSpec, FailureKind, RuntimeError, StartError, Stats,
    WindowSize, bundle, console, stats,
};
use super::link::{self, Link};
use super::{ANSWER_TIMEOUT, Handle, Runtime, check, io_error};
use crate::log::{LogLine, LogQuery, LogReader};

/// How long a follower of a log sleeps when there is nothing new: from this, doubling, to that.
const FOLLOW_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(160));

/// A command that runs in a container, beside its own.
#[derive(Debug)]
pub struct Exec {
    /// Its process, as seen from the daemon.
    pub pid: i32,
    /// Its input. Dropping it is its end, unless there is a terminal.
    pub stdin: pipe::Sender,
    /// Its output.
    pub stdout: ExecOutput,
    /// Its errors; none with a terminal, where they are in the output.
    pub stderr: Option<ExecOutput>,
    /// Its terminal; beside the streams, so that each may be waited for by itself.
    pub terminal: ExecTerminal,
    /// Its end.
    pub end: ExecEnd,
}

/// How such a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecExit {
    /// The exit status; 128 + the number for a signal.
    pub code: i32,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}

/// The reading end of a command's output; a terminal that is hung up is its end.
#[derive(Debug)]
pub struct ExecOutput(pipe::Receiver);

impl AsyncRead for ExecOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(context, buffer) {
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::EIO) => Poll::Ready(Ok(())),
            polled => polled,
        }
    }
}

/// The terminal of such a command, if it has one. It is hung up when this and the streams are dropped.
#[derive(Debug)]
pub struct ExecTerminal(Option<OwnedFd>);

/// Tells how such a command ends.
#[derive(Debug)]
pub struct ExecEnd(Link);

impl Exec {
    /// Sets the size of the terminal; does nothing without one.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        self.terminal.resize(size)
    }

    /// Waits for its end, as [`ExecEnd::exit`].
    pub async fn exit(&mut self) -> ExecExit {
        self.end.exit().await
    }
}

impl ExecTerminal {
    /// Tells whether there is one.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Sets the size; does nothing without a terminal.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |terminal| console::resize(terminal.as_fd(), size))
    }
}

impl ExecEnd {
    /// Waits for the end. If the container ends first, the command is taken to be killed. May be cancelled, and called
    /// again until it has returned.
    pub async fn exit(&mut self) -> ExecExit {
        match self.0.next::<Reply>().await {
            Ok(Reply::ExecEnded { code, signal }) => ExecExit { code, signal },
            Ok(_) | Err(_) => ExecExit { code: 128 + libc::SIGKILL, signal: Some(libc::SIGKILL) },
        }
    }
}

/// Lines of a container's log as they come; see [`Runtime::logs`].
#[derive(Debug)]
pub struct LogStream {
    reader: Option<LogReader>,
    follow: bool,
    handle: Arc<Handle>,
}

impl LogStream {
    /// Returns the next lines, at least one; `None` at the end: at once, or when following, when the container has
    /// ended. Not to be called again after a call that was cancelled.
    pub async fn next(&mut self) -> Option<io::Result<Vec<LogLine>>> {
        let mut pause = FOLLOW_PAUSES.0;
        loop {
            // Asked before reading: what is written before the end is there when the end is known.
            let ended = !self.follow || self.handle.exit().is_some();
            let mut reader = self.reader.take()?;
            let read = tokio::task::spawn_blocking(move || {
                let lines = reader.read();
                (reader, lines)
            });
            let lines = match read.await {
                Ok((reader, lines)) => {
                    self.reader = Some(reader);
                    lines
                }
                Err(error) => Err(io::Error::other(error)),
            };
            match lines {
                Ok(lines) if lines.is_empty() && ended => return None,
                Ok(lines) if lines.is_empty() => {}
                lines => return Some(lines),
            }
            let _ = timeout(pause, self.handle.exited()).await;
            pause = (pause * 2).min(FOLLOW_PAUSES.1);
        }
    }
}

impl Runtime {
    /// Runs a further command in a running container. Returns when it is executed, or with the reason why it cannot
    /// be; `size` is that of its terminal, if it gets one.
    pub async fn exec(&self, id: &str, spec: &ExecSpec, size: Option<WindowSize>) -> Result<Exec, StartError> {
        check::exec(spec).map_err(StartError::Invalid)?;
        let handle = self.find(id).ok_or_else(|| StartError::Missing(id.to_owned()))?;
        if !matches!(handle.phase.borrow().state, ContainerState::Running { .. }) {
            return Err(StartError::NotRunning(id.to_owned()));
        }
        let failed = |source| StartError::Io { doing: format!("run a command in container {id}"), source };
        let spec = spec.clone();
        let begun = tokio::task::spawn_blocking(move || begin(&handle, spec, size)).await;
        match begun.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)? {
            Ok(begun) => begun.into_exec().map_err(failed),
            Err(failure) => Err(StartError::Failed { kind: failure.kind, message: failure.message }),
        }
    }

    /// Signals a command begun by [`exec`](Self::exec); nothing happens if it has ended.
    pub async fn signal_exec(&self, id: &str, pid: i32, signal: i32) -> Result<(), RuntimeError> {
        self.done(id, Request::SignalExec { pid, signal }).await
    }

    /// Reads what a container that has not ended uses.
    pub async fn stats(&self, id: &str) -> Result<Stats, RuntimeError> {
        match self.asked(id, Request::Stats).await? {
            Reply::Stats(stats) => Ok(*stats),
            reply => Err(unexpected(id, reply)),
        }
    }

    /// Lists the processes of a container, ordered by their numbers.
    pub async fn processes(&self, id: &str) -> Result<Vec<ContainerProcess>, RuntimeError> {
        match self.asked(id, Request::Processes).await? {
            Reply::Processes(pids) => Ok(pids.into_iter().filter_map(stats::process).collect()),
            reply => Err(unexpected(id, reply)),
        }
    }

    /// Reads a container's output. Lines are as they were written; [`LogStream::next`] says when there are no more.
    pub async fn logs(&self, id: &str, query: LogQuery) -> Result<LogStream, RuntimeError> {
        let handle = self.found(id)?;
        let (path, follow) = (handle.bundle.join(bundle::LOG), query.follow);
        let failed = io_error(format!("read the log of container {id}"));
        let opened = tokio::task::spawn_blocking(move || LogReader::open(path, query)).await;
        let reader = opened.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)?;
        Ok(LogStream { reader: Some(reader), follow, handle })
    }

    /// Reads what a container was made from.
    pub async fn spec(&self, id: &str) -> Result<ContainerSpec, RuntimeError> {
        let path = self.found(id)?.bundle.clone();
        let read = tokio::task::spawn_blocking(move || bundle::read(&path, bundle::SPEC)).await;
        let failed = io_error(format!("read the spec of container {id}"));
        read.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)
    }

    /// Reads the last lines of a container's output.
    pub async fn log(&self, id: &str, lines_max: usize) -> Result<Vec<LogLine>, RuntimeError> {
        let mut stream = self.logs(id, LogQuery { tail: Some(lines_max), ..LogQuery::default() }).await?;
        let mut lines = Vec::new();
        while lines.len() < lines_max
            && let Some(batch) = stream.next().await
        {
            lines.extend(batch.map_err(io_error(format!("read the log of container {id}")))?);
        }
        lines.truncate(lines_max);
        Ok(lines)
    }

    pub(super) async fn done(&self, id: &str, request: Request) -> Result<(), RuntimeError> {
        match self.asked(id, request).await? {
            Reply::Done => Ok(()),
            reply => Err(unexpected(id, reply)),
        }
    }

    async fn asked(&self, id: &str, request: Request) -> Result<Reply, RuntimeError> {
        let handle = self.found(id)?;
        let refused = |reason: &str| RuntimeError::Shim { id: id.to_owned(), reason: reason.to_owned() };
        match timeout(ANSWER_TIMEOUT, handle.ask(&request)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(refused("is gone: the container has ended")),
            Err(_) => Err(refused("does not answer")),
        }
    }
}

pub(super) fn unexpected(id: &str, reply: Reply) -> RuntimeError {
    let reason = match reply {
        Reply::Refused(reason) => reason,
        reply => format!("gave an answer to another question: {reply:?}"),
    };
    RuntimeError::Shim { id: id.to_owned(), reason }
}

/// What a shim's answer to an exec brings.
struct Begun {
    pid: i32,
    streams: Streams,
    stream: StdUnixStream,
}

enum Streams {
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(OwnedFd),
}

/// Runs outside of the reactor, since descriptors cannot be sent through it.
fn begin(handle: &Handle, spec: ExecSpec, size: Option<WindowSize>) -> io::Result<Result<Begun, Failure>> {
    let stream = connect(handle)?;
    let tty = spec.tty;
    let request = line(&Request::Exec { spec, size });
    let (stdin_end, stdin) = io::pipe()?;
    let (stdout, stdout_end) = io::pipe()?;
    let (stderr, stderr_end) = io::pipe()?;
    let ends = [stdin_end.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()];
    console::send(&stream, &request, if tty { &[] } else { &ends })?;
    drop((stdin_end, stdout_end, stderr_end));
    let streams = match read_reply(&stream)? {
        (Reply::Executed { pid }, None) if !tty => {
            let streams = Streams::Pipes { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() };
            (pid, streams)
        }
        (Reply::Executed { pid }, Some(terminal)) => (pid, Streams::Terminal(terminal)),
        (Reply::Failed(failure), _) => return Ok(Err(failure)),
        (Reply::Refused(reason), _) => {
            return Ok(Err(Failure::new(FailureKind::Host, format!("the container {reason}"))));
        }
        _ => return Err(io::Error::other("the shim gave an answer to another question")),
    };
    Ok(Ok(Begun { pid: streams.0, streams: streams.1, stream }))
}

pub(super) fn connect(handle: &Handle) -> io::Result<StdUnixStream> {
    let stream = link::connect_std(&handle.bundle)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    // The greeting says nothing that the handle does not know.
    let _ = read_line(&stream)?;
    Ok(stream)
}

pub(super) fn read_reply(stream: &StdUnixStream) -> io::Result<(Reply, Option<OwnedFd>)> {
    let (text, descriptor) = read_line(stream)?;
    Ok((serde_json::from_slice(&text)?, descriptor))
}

/// Reads one line, byte by byte: what follows it is for the reactor.
fn read_line(stream: &StdUnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let (mut text, mut descriptor) = (Vec::new(), None);
    let mut byte = [0];
    while text.last() != Some(&b'\n') {
        let (length, mut descriptors) = console::receive(stream, &mut byte)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.push(byte[0]);
        descriptor = descriptors.pop().or(descriptor);
        if text.len() > super::super::protocol::LINE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
    Ok((text, descriptor))
}

impl Begun {
    fn into_exec(self) -> io::Result<Exec> {
        self.stream.set_read_timeout(None)?;
        let link = Link::from_std(self.stream)?;
        match self.streams {
            Streams::Pipes { stdin, stdout, stderr } => Ok(Exec {
                pid: self.pid,
                stdin: sender(stdin)?,
                stdout: receiver(stdout)?,
                stderr: Some(receiver(stderr)?),
                terminal: ExecTerminal(None),
                end: ExecEnd(link),
            }),
            Streams::Terminal(terminal) => Ok(Exec {
                pid: self.pid,
                stdin: sender(terminal.try_clone()?)?,
                stdout: receiver(terminal.try_clone()?)?,
                stderr: None,
                terminal: ExecTerminal(Some(terminal)),
                end: ExecEnd(link),
            }),
        }
    }
}

/// A terminal is none, but behaves as a pipe.
pub(super) fn sender(descriptor: OwnedFd) -> io::Result<pipe::Sender> {
    not_blocking(&descriptor)?;
    pipe::Sender::from_file_unchecked(File::from(descriptor))
}

pub(super) fn receiver(descriptor: OwnedFd) -> io::Result<ExecOutput> {
    not_blocking(&descriptor)?;
    Ok(ExecOutput(pipe::Receiver::from_file_unchecked(File::from(descriptor))?))
}

fn not_blocking(descriptor: &OwnedFd) -> io::Result<()> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_SETFL(flags))?;
    Ok(())
}
