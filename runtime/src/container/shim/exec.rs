//! Further commands in the running container: begun for a client, ended for whoever still listens.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::unistd::Pid;

use super::super::console::ConsoleSocket;
use super::super::driver::{Driver, ExecOrder, Streams};
use super::super::protocol::{Failure, Reply};
use super::super::{ExecSpec, FailureKind, WindowSize, bundle, oci};
use super::clients::{Client, tell};
use super::make::{Container, absolute, open_root, resolve_user};

/// The commands that run, and the connections on which their ends are told.
#[derive(Default)]
pub(super) struct Execs(Vec<(Pid, UnixStream)>);

impl Execs {
    /// Begins a command and answers the client. An error means that the client is to be forgotten.
    pub(super) fn begin(
        &mut self,
        container: &Container,
        driver: &Driver,
        client: &mut Client,
        spec: &ExecSpec,
        size: Option<WindowSize>,
    ) -> io::Result<()> {
        let streams = client.take_descriptors();
        match run(container, driver, (spec, size), streams) {
            Ok((pid, terminal)) => {
                self.0.push((pid, client.later()?));
                client.reply(&Reply::Executed { pid: pid.as_raw() }, terminal.as_ref().map(AsFd::as_fd))
            }
            Err(failure) => client.reply(&Reply::Failed(failure), None),
        }
    }

    /// Tells the end of a command, if it is one of these.
    pub(super) fn ended(&mut self, pid: Pid, code: i32, signal: Option<i32>) {
        let Some(index) = self.0.iter().position(|(known, _)| *known == pid) else { return };
        let (_, stream) = self.0.swap_remove(index);
        tell(&stream, &Reply::ExecEnded { code, signal });
    }

    pub(super) fn contains(&self, pid: Pid) -> bool {
        self.0.iter().any(|(known, _)| *known == pid)
    }
}

fn run(
    container: &Container,
    driver: &Driver,
    (exec, size): (&ExecSpec, Option<WindowSize>),
    streams: Vec<OwnedFd>,
) -> Result<(Pid, Option<OwnedFd>), Failure> {
    let spec = &container.spec;
    let root = open_root()?;
    let user = if exec.user.is_empty() {
        resolve_user(&root, &spec.user, &spec.groups)?
    } else {
        resolve_user(&root, &exec.user, &[])?
    };
    let failed = Failure::doing(FailureKind::Host, "prepare the command");
    let streams = streams_of(exec.tty, streams).map_err(&failed)?;
    let process = oci::exec_process(spec, exec, size, &user, &container.host).to_string();
    fs::write(bundle::EXEC_PROCESS, process).map_err(&failed)?;
    let filtered = !(spec.privileges.unfiltered || exec.privileged);
    let order = ExecOrder { spec, process: absolute(bundle::EXEC_PROCESS)?, streams, filtered };
    let begun = driver.exec(&order);
    let _ = fs::write("/proc/self/oom_score_adj", container.host.oom_score_adj.to_string());
    let _ = fs::remove_file(bundle::EXEC_PROCESS);
    begun
}

fn streams_of(tty: bool, descriptors: Vec<OwnedFd>) -> io::Result<Streams> {
    if tty {
        return Ok(Streams::Console(ConsoleSocket::bind(bundle::EXEC_CONSOLE)?));
    }
    match <[OwnedFd; 3]>::try_from(descriptors) {
        Ok([stdin, stdout, stderr]) => Ok(Streams::Pipes { stdin, stdout, stderr }),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "the request came without its three streams")),
    }
}
