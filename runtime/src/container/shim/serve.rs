//! The shim's loop: output to the log, requests to the container, until the container's process has ended.
//!
//! Input: a created container and its daemon's connection. Output: its [`Exit`], as told by `waitpid`.

use std::fs::File;
use std::io::{self, Read};
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
use super::super::driver::Driver;
use super::super::protocol::{Failure, Greeting, Reply, Request};
use super::super::{Exit, WindowSize, bundle, console, stats};
use super::clients::Client;
use super::exec::Execs;
use super::lease;
use super::make::Container;
use super::now_ms;
use super::taps::Taps;
use crate::log::{LineCutter, LogFile};

/// Most connections at once; a daemon needs two or three, and one for each exec.
const CLIENTS_MAX: usize = 256;

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

struct Shim<'a> {
    container: Container,
    pid: Pid,
    state: State,
    log: LogFile,
    outputs: Vec<Output>,
    clients: Vec<Client>,
    execs: Execs,
    cgroup: &'a Cgroup,
    driver: &'a Driver,
    lease: Option<lease::Watch>,
}

struct Output {
    pipe: File,
    lines: LineCutter,
    taps: Taps,
}

/// The end of a container, and the connections whose end will tell of the shim's own.
pub(super) struct Served {
    pub(super) exit: Exit,
    _clients: Vec<Client>,
}

/// Serves until the container's process has ended.
pub(super) fn serve(
    mut container: Container,
    listener: &UnixListener,
    daemon: UnixStream,
    cgroup: &Cgroup,
    driver: &Driver,
) -> io::Result<Served> {
    // Nothing but SIGKILL ends a shim before its container.
    SigSet::all().thread_block()?;
    let children =
        SignalFd::with_flags(&SigSet::from(Signal::SIGCHLD), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    listener.set_nonblocking(true)?;
    let outputs = container.outputs.drain(..).map(output).collect::<io::Result<Vec<_>>>()?;
    let log = LogFile::create(bundle::LOG.into(), container.spec.log);
    let (pid, state, execs) = (container.made.pid, State::Created, Execs::default());
    let lease = container.spec.lease.clone().map(lease::Watch::new);
    let mut shim = Shim { container, pid, state, log, outputs, clients: Vec::new(), execs, cgroup, driver, lease };
    shim.greet(daemon);
    let status = loop {
        let ready = shim.wait(&children, listener)?;
        if ready.children {
            while children.read_signal()?.is_some() {}
            if let Some(status) = shim.reap()? {
                break status;
            }
        }
        if let Some(signal) = shim.lease.as_mut().and_then(lease::Watch::look) {
            // What has just ended needs none.
            let _told = shim.signal(signal);
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

fn output((pipe, stream): (OwnedFd, &'static str)) -> io::Result<Output> {
    let pipe = File::from(pipe);
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(Output { pipe, lines: LineCutter::new(stream), taps: Taps::default() })
}

struct Ready {
    children: bool,
    listener: bool,
}

impl Shim<'_> {
    /// Sleeps until something can be done. The streams are not blocking, so that trying each of them is cheap.
    fn wait(&self, children: &SignalFd, listener: &UnixListener) -> io::Result<Ready> {
        let mut descriptors =
            vec![PollFd::new(children.as_fd(), PollFlags::POLLIN), PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        descriptors.extend(self.outputs.iter().map(|output| PollFd::new(output.pipe.as_fd(), PollFlags::POLLIN)));
        descriptors.extend(self.clients.iter().map(|client| PollFd::new(client.as_fd(), PollFlags::POLLIN)));
        let most = PollTimeout::try_from(lease::LOOK).unwrap_or(PollTimeout::NONE);
        match poll(&mut descriptors, if self.lease.is_some() { most } else { PollTimeout::NONE }) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let readable = |index: usize| descriptors.get(index).and_then(PollFd::any).unwrap_or(false);
        Ok(Ready { children: readable(0), listener: readable(1) })
    }

    /// Collects ended children; returns the container's own end.
    fn reap(&mut self) -> io::Result<Option<WaitStatus>> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
                Ok(status @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _))) if pid == self.pid => {
                    return Ok(Some(status));
                }
                Ok(WaitStatus::Exited(pid, code)) => self.execs.ended(pid, code, None),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.execs.ended(pid, 128 + signal as i32, Some(signal as i32));
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
        if let Ok(client) = Client::greet(stream, &greeting) {
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
        client.receive()?;
        while let Some(request) = client.next_request() {
            let reply = match request {
                Ok(Request::Start) => self.start(),
                Ok(Request::Signal(signal)) => self.signal(signal),
                Ok(Request::Exec { spec, size }) => {
                    if !matches!(self.state, State::Running { .. }) {
                        Reply::Refused("runs no command yet, or no more".to_owned())
                    } else {
                        self.execs.begin(&self.container, self.driver, client, &spec, size)?;
                        continue;
                    }
                }
                Ok(Request::SignalExec { pid, signal }) => self.signal_exec(pid, signal),
                Ok(Request::Attach) => match &self.container.stdin {
                    Some(stdin) => {
                        client.reply(&Reply::Attached, Some(stdin.as_fd()))?;
                        continue;
                    }
                    None => Reply::Refused("has no open standard input".to_owned()),
                },
                Ok(Request::Tap) => self.tap(client.take_descriptors()),
                Ok(Request::CloseStdin) => {
                    self.container.stdin = None;
                    Reply::Done
                }
                Ok(Request::Resize(size)) => self.resize(size),
                Ok(Request::Stats) => Reply::Stats(Box::new(stats::read(self.cgroup, self.pid.as_raw(), now_ms()))),
                Ok(Request::Processes) => Reply::Processes(self.cgroup.processes()),
                Err(error) => Reply::Refused(format!("does not know this request: {error}")),
            };
            client.reply(&reply, None)?;
        }
        Ok(())
    }

    fn start(&mut self) -> Reply {
        if !matches!(self.state, State::Created) {
            return Reply::Refused("has been started before".to_owned());
        }
        match self.container.made.start() {
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
        signalled(self.pid, signal)
    }

    fn signal_exec(&self, pid: i32, signal: i32) -> Reply {
        let pid = Pid::from_raw(pid);
        if self.execs.contains(pid) { signalled(pid, signal) } else { Reply::Done }
    }

    /// Copies each stream to the pipe that came for it; of one that has ended there is nothing more to copy.
    fn tap(&mut self, pipes: Vec<OwnedFd>) -> Reply {
        let wanted = if self.container.terminal.is_some() { 1 } else { 2 };
        if pipes.len() != wanted {
            return Reply::Refused(format!("was sent {} pipes to copy its output to, not {wanted}", pipes.len()));
        }
        for (pipe, stream) in pipes.into_iter().zip(["stdout", "stderr"]) {
            let output = self.outputs.iter_mut().find(|output| output.lines.stream() == stream);
            if let Some(Err(error)) = output.map(|output| output.taps.add(pipe)) {
                return Reply::Refused(format!("cannot copy its output: {error}"));
            }
        }
        Reply::Done
    }

    fn resize(&self, size: WindowSize) -> Reply {
        let Some(terminal) = &self.container.terminal else {
            return Reply::Refused("has no terminal".to_owned());
        };
        match console::resize(terminal.as_fd(), size) {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Refused(format!("cannot resize its terminal: {error}")),
        }
    }
}

fn signalled(pid: Pid, signal: i32) -> Reply {
    match send(pid, signal) {
        Ok(()) => Reply::Done,
        Err(error) => Reply::Refused(format!("cannot send signal {signal}: {error}")),
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
                self.taps.copy(&buffer[..length]);
                self.lines.feed(&buffer[..length], log);
                Progress::Read
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Progress::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Progress::Read,
            Err(_) => Progress::End,
        }
    }
}
