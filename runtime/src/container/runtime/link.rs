//! A connection from the daemon to one shim.
//!
//! Input: a bundle. Output: the shim's greeting, answers, and the moment of its end. The socket's path is reached
//! through a descriptor of the bundle, since the path itself may be longer than a Unix socket's address can hold.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::super::bundle;
use super::super::protocol::{Greeting, LINE_BYTES_MAX, Reply, Request, line};

/// One connection; dropping it is noticed by the shim and harmless.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Link {
    /// Connects and reads the greeting. An error means that no shim lives there, or that it is about to leave.
    pub(super) async fn connect(bundle: &Path) -> io::Result<(Self, Greeting)> {
        Self::greeted(connect(bundle).await?).await
    }

    /// Takes the daemon's end of the socket that a new shim has as standard input, and reads the greeting.
    pub(super) async fn inherited(stream: StdUnixStream) -> io::Result<(Self, Greeting)> {
        stream.set_nonblocking(true)?;
        Self::greeted(UnixStream::from_std(stream)?).await
    }

    async fn greeted(stream: UnixStream) -> io::Result<(Self, Greeting)> {
        let mut link = Self { stream, received: Vec::new() };
        let greeting = link.read().await?;
        Ok((link, greeting))
    }

    /// Takes a connection whose greeting has been read.
    pub(super) fn from_std(stream: StdUnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: UnixStream::from_std(stream)?, received: Vec::new() })
    }

    /// Waits for what the shim says next. May be cancelled.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        self.read().await
    }

    pub(super) async fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        self.stream.write_all(&line(request)).await?;
        self.read().await
    }

    /// Waits for the end of the shim.
    pub(super) async fn closed(mut self) {
        let mut ignored = [0; 64];
        while !matches!(self.stream.read(&mut ignored).await, Ok(0) | Err(_)) {}
    }

    async fn read<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            if self.received.len() > LINE_BYTES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Makes the socket at which the shim of a bundle will be found: before the shim, so that a daemon that dies in between
/// leaves either nobody who listens or somebody who will answer, and its successor cannot miss a shim that starts.
pub(super) fn listen(bundle: &Path) -> io::Result<StdUnixListener> {
    let directory = open(bundle)?;
    StdUnixListener::bind(format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), bundle::SOCKET))
}

/// Connects without a reactor; blocks if the shim has too many connections waiting.
pub(super) fn connect_std(bundle: &Path) -> io::Result<StdUnixStream> {
    let directory = open(bundle)?;
    StdUnixStream::connect(format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), bundle::SOCKET))
}

fn open(bundle: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(bundle)
}

async fn connect(bundle: &Path) -> io::Result<UnixStream> {
    let directory = open(bundle)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), bundle::SOCKET)).await
}

/// Kills a shim that does not react. Its process number comes from the live socket, so that it cannot be another's.
pub(super) async fn kill_shim(bundle: &Path) -> io::Result<()> {
    let pid = connect(bundle).await?.peer_cred()?.pid();
    let pid = pid.filter(|pid| *pid > 1 && u32::try_from(*pid).is_ok_and(|pid| pid != std::process::id()));
    let pid = pid.ok_or_else(|| io::Error::other("the shim has no process number here"))?;
    // The one who made the socket, until the shim has taken it over; that may have been a daemon long gone.
    let command = std::fs::read(format!("/proc/{pid}/cmdline"))?;
    if command.split(|byte| *byte == 0).nth(1) != Some(b"shim") {
        return Err(io::Error::other("the shim has no process number yet"));
    }
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}
