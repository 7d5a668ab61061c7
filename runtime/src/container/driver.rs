//! The edge to what makes a container out of a bundle: libcontainer in this process, or `runc`/`crun` by path.
//!
//! Input: the bundle in the working directory, with its root file system mounted and `config.json` written. Output:
//! processes, as children of the shim: the shim waits for them and knows nothing else of how they came to be. An edge
//! of four: [`Driver::create`], [`Made::start`], [`Driver::exec`], and what the shim may expect of `config.json`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::unistd::Pid;

use super::ContainerSpec;
use super::console::ConsoleSocket;
use super::protocol::Failure;

mod external;
mod native;

/// Who makes containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    /// libcontainer, within the shim.
    Native,
    /// A program with the command line of `runc`.
    External(PathBuf),
}

/// Where a new process reads and writes.
pub(super) enum Streams {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A terminal, whose master end arrives here.
    Console(ConsoleSocket),
}

/// A container whose first process waits for its start.
pub(super) struct Made {
    pub(super) pid: Pid,
    waiting: Waiting,
}

enum Waiting {
    Native(native::Waiting),
    External(external::Waiting),
}

/// A further command as the shim hands it to a driver.
pub(super) struct ExecOrder<'a> {
    pub(super) spec: &'a ContainerSpec,
    /// A file with the `process` of an OCI spec.
    pub(super) process: PathBuf,
    pub(super) streams: Streams,
    /// Whether the system call filter is installed.
    pub(super) filtered: bool,
}

impl Driver {
    /// Whether the driver needs the system call filter in `config.json`; otherwise it is installed by our own code.
    pub(super) fn wants_filter(&self) -> bool {
        match self {
            Self::Native => false,
            Self::External(_) => true,
        }
    }

    /// Whether the container may get its view of the cgroups from us; other programs insist on mounting it themselves.
    pub(super) fn takes_cgroup_view(&self) -> bool {
        match self {
            Self::Native => true,
            Self::External(_) => false,
        }
    }

    /// Says why this driver cannot do what a spec asks, if so.
    pub(super) fn check(&self, spec: &ContainerSpec) -> Result<(), Failure> {
        match self {
            Self::Native => Ok(()),
            Self::External(path) if spec.init => Err(Failure::host(format!(
                "{} has no --init; leave it out, put an init into the image, or use the native runtime",
                path.display()
            ))),
            Self::External(_) => Ok(()),
        }
    }

    /// Creates the container of the bundle in the working directory. Returns the terminal's master as well, if there
    /// is a terminal.
    pub(super) fn create(&self, spec: &ContainerSpec, streams: Streams) -> Result<(Made, Option<OwnedFd>), Failure> {
        let (pid, waiting) = match self {
            Self::Native => {
                let (pid, waiting) = native::create(spec, &streams)?;
                (pid, Waiting::Native(waiting))
            }
            Self::External(path) => {
                let (pid, waiting) = external::create(path, spec, &streams)?;
                (pid, Waiting::External(waiting))
            }
        };
        Ok((Made { pid, waiting }, streams.terminal()?))
    }

    /// Runs a further command in the container. Returns its process, a child of the caller, and its terminal.
    pub(super) fn exec(&self, order: &ExecOrder<'_>) -> Result<(Pid, Option<OwnedFd>), Failure> {
        let pid = match self {
            Self::Native => native::exec(order)?,
            Self::External(path) => external::exec(path, order)?,
        };
        Ok((pid, order.streams.terminal()?))
    }
}

impl Made {
    /// Starts the command and waits until it is executed, or has failed to be.
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        match &mut self.waiting {
            Waiting::Native(waiting) => waiting.start(),
            Waiting::External(waiting) => waiting.start(),
        }
    }
}

impl Streams {
    fn terminal(&self) -> Result<Option<OwnedFd>, Failure> {
        match self {
            Self::Pipes { .. } => Ok(None),
            Self::Console(socket) => {
                let received = socket.receive();
                received.map(Some).map_err(|error| Failure::host(format!("cannot open the terminal: {error}")))
            }
        }
    }

    /// Standard input, output and error, if they are not a terminal.
    fn pipes(&self) -> Option<[BorrowedFd<'_>; 3]> {
        match self {
            Self::Pipes { stdin, stdout, stderr } => Some([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]),
            Self::Console(_) => None,
        }
    }

    fn console(&self) -> Option<PathBuf> {
        match self {
            Self::Pipes { .. } => None,
            Self::Console(socket) => Some(socket.path.clone()),
        }
    }

    fn cloned_pipes(&self) -> io::Result<Option<[OwnedFd; 3]>> {
        let Some([stdin, stdout, stderr]) = self.pipes() else { return Ok(None) };
        Ok(Some([stdin.try_clone_to_owned()?, stdout.try_clone_to_owned()?, stderr.try_clone_to_owned()?]))
    }
}
