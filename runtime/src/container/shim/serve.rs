//! The shim's loop: output to the log, requests to the container, until the container's process has ended.
//!
//! Input: a created container and its daemon's connection. Output: its [`Exit`], as told by `waitpid`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::super::cgroup::Cgroup;
use super::super::init::{self, Init};
use super::super::protocol::{Failure, Greeting, LINE_BYTES_MAX, Reply, Request, line};
use super::super::{Exit, bundle};
use super::now_ms;
use crate::log::{FILE_BYTES_MAX, LineCutter, LogFile};

/// Most connections at once; a daemon needs two or three.
const CLIENTS_MAX: usize = 16;

/// How much output is taken per read: a quarter of a pipe, so that two chatty streams take turns.
const READ_BYTES: usize = 16 * 1024;

enum State {
    Created,
    Running {
        started_at_ms: u64,
    },
    /// Started, but the command could not be executed; the process is about to end.
    Failed(Failure),
}

struct Shim {
    init: Init,
    pid: Pid,
    state: State,
    log: LogFile,
    outputs: Vec<Output>,
    clients: Vec<Client>,
}

struct Output {
    pipe: File,
    lines: LineCutter,
}

pub(super) struct Client {
    stream: UnixStream,
    received: Vec<u8>,
}

/// The end of a container, and the connections whose end will tell of the shim's own.
pub(super) struct Served {
    pub(super) exit: Exit,
    _clients: Vec<Client>,
}

/// Serves until the container's process has ended.
pub(super) fn serve(init: Init, listener: &UnixListener, daemon: UnixStream, cgroup: &Cgroup) -> io::Result<Served> {
    // Nothing but SIGKILL ends a shim before its container.
    SigSet::all().thread_block()?;
    let children =
        SignalFd::with_flags(&SigSet::from(Signal::SIGCHLD), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    listener.set_nonblocking(true)?;
    let pid = init.container.pid().map(|pid| Pid::from_raw(pid.as_raw()));
    let pid = pid.ok_or_else(|| io::Error::other("the created container has no process"))?;
    let outputs = vec![output(&init.stdout, "stdout")?, output(&init.stderr, "stderr")?];
    let log = LogFile::create(bundle::LOG.into(), FILE_BYTES_MAX)?;
    let mut shim = Shim { init, pid, state: State::Created, log, outputs, clients: Vec::new() };
    shim.greet(daemon);
    let status = loop {
        let ready = shim.wait(&children, listener)?;
        if ready.children {
            while children.read_signal()?.is_some() {}
            if let Some(status) = shim.reap()? {
                break status;
            }
        }
        shim.read_outputs();
        if ready.listener {
            shim.accept(listener);
        }
        shim.serve_clients();
    };
    shim.read_outputs_to_their_end();
    Ok(Served { exit: shim.exit(status, cgroup.oom_kills() > 0), _clients: shim.clients })
}

fn output(pipe: &OwnedFd, stream: &'static str) -> io::Result<Output> {
    let pipe = File::from(pipe.try_clone()?);
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(Output { pipe, lines: LineCutter::new(stream) })
}

struct Ready {
    children: bool,
    listener: bool,
}

impl Shim {
    /// Sleeps until something can be done. The streams are not blocking, so that trying each of them is cheap.
    fn wait(&self, children: &SignalFd, listener: &UnixListener) -> io::Result<Ready> {
        let mut descriptors =
            vec![PollFd::new(children.as_fd(), PollFlags::POLLIN), PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        descriptors.extend(self.outputs.iter().map(|output| PollFd::new(output.pipe.as_fd(), PollFlags::POLLIN)));
        descriptors.extend(self.clients.iter().map(|client| PollFd::new(client.stream.as_fd(), PollFlags::POLLIN)));
        match poll(&mut descriptors, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let readable = |index: usize| descriptors.get(index).and_then(PollFd::any).unwrap_or(false);
        Ok(Ready { children: readable(0), listener: readable(1) })
    }

    /// Collects ended children; returns the container's own end.
    fn reap(&self) -> io::Result<Option<WaitStatus>> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
                Ok(status @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _))) if pid == self.pid => {
                    return Ok(Some(status));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn exit(&self, status: WaitStatus, oom: bool) -> Exit {
        let (code, signal) = match status {
            WaitStatus::Exited(_, code) => (code, None),
            WaitStatus::Signaled(_, signal, _) => (128 + signal as i32, Some(signal as i32)),
            other => unreachable!("only ends are collected, not {other:?}"),
        };
        let exit = Exit { code, signal, oom, error: None, finished_at_ms: now_ms(), started_at_ms: 0 };
        match &self.state {
            State::Created => exit,
            State::Running { started_at_ms } => Exit { started_at_ms: *started_at_ms, ..exit },
            State::Failed(failure) => {
                Exit { code: failure.kind.exit_code(), error: Some(failure.message.clone()), ..exit }
            }
        }
    }

    /// Reads once from each stream that has something, and forgets those that have ended.
    fn read_outputs(&mut self) {
        let log = &mut self.log;
        self.outputs.retain_mut(|output| output.read(log) != Progress::End);
    }

    /// All writers are dead: what is in the pipes is all there will be.
    fn read_outputs_to_their_end(&mut self) {
        for mut output in self.outputs.drain(..) {
            while output.read(&mut self.log) == Progress::Read {}
            output.lines.finish(&mut self.log);
        }
    }

    fn accept(&mut self, listener: &UnixListener) {
        while let Ok((stream, _)) = listener.accept() {
            if self.clients.len() < CLIENTS_MAX {
                self.greet(stream);
            }
        }
    }

    fn greet(&mut self, stream: UnixStream) {
        let pid = self.pid.as_raw();
        let greeting = match &self.state {
            State::Created => Greeting::Created { pid },
            State::Running { started_at_ms } => Greeting::Running { pid, started_at_ms: *started_at_ms },
            State::Failed(failure) => Greeting::Failed(failure.clone()),
        };
        let mut client = Client { stream, received: Vec::new() };
        if client.stream.set_nonblocking(true).is_ok() && client.stream.write_all(&line(&greeting)).is_ok() {
            self.clients.push(client);
        }
    }

    fn serve_clients(&mut self) {
        for mut client in std::mem::take(&mut self.clients) {
            if self.serve_client(&mut client).is_ok() {
                self.clients.push(client);
            }
        }
    }

    /// Answers what a client has sent. An error means that it is to be forgotten.
    fn serve_client(&mut self, client: &mut Client) -> io::Result<()> {
        let mut buffer = [0; 512];
        loop {
            match client.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => client.received.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if client.received.len() > LINE_BYTES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        while let Some(end) = client.received.iter().position(|byte| *byte == b'\n') {
            let request: Vec<u8> = client.received.drain(..=end).collect();
            let reply = match serde_json::from_slice(&request) {
                Ok(Request::Start) => self.start(),
                Ok(Request::Signal(signal)) => self.signal(signal),
                Err(error) => Reply::Refused(format!("does not know this request: {error}")),
            };
            client.stream.write_all(&line(&reply))?;
        }
        Ok(())
    }

    fn start(&mut self) -> Reply {
        if !matches!(self.state, State::Created) {
            return Reply::Refused("has been started before".to_owned());
        }
        match init::start(&mut self.init.container, &mut self.init.report) {
            Ok(()) => {
                let started_at_ms = now_ms();
                self.state = State::Running { started_at_ms };
                Reply::Started { started_at_ms }
            }
            Err(failure) => {
                self.state = State::Failed(failure.clone());
                // It ends by itself if it got as far as to fail; it must end in any case.
                let _ = send(self.pid, libc::SIGKILL);
                Reply::Failed(failure)
            }
        }
    }

    fn signal(&mut self, signal: i32) -> Reply {
        let signal = match &self.state {
            // Nothing in there handles a signal yet.
            State::Created if signal != 0 => libc::SIGKILL,
            State::Created | State::Running { .. } | State::Failed(_) => signal,
        };
        match send(self.pid, signal) {
            Ok(()) => Reply::Signalled,
            Err(error) => Reply::Refused(format!("cannot send signal {signal}: {error}")),
        }
    }
}

/// Sends a signal to our child, which is not yet waited for, so that its number is still its own.
#[expect(unsafe_code, reason = "nix has no way to name the real-time signals, which images do use")]
fn send(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    match unsafe { libc::kill(pid.as_raw(), signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[derive(PartialEq, Eq)]
enum Progress {
    Read,
    Nothing,
    End,
}

impl Output {
    fn read(&mut self, log: &mut LogFile) -> Progress {
        let mut buffer = [0; READ_BYTES];
        match self.pipe.read(&mut buffer) {
            Ok(0) => {
                self.lines.finish(log);
                Progress::End
            }
            Ok(length) => {
                self.lines.feed(&buffer[..length], log);
                Progress::Read
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Progress::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Progress::Read,
            Err(_) => Progress::End,
        }
    }
}
