//! libcontainer as the driver: namespaces, cgroups and mounts made by this very process, which must have one thread.

use std::fs;
use std::io;
use std::path::Path;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::unistd::Pid;

use super::super::init::Payload;
use super::super::protocol::Failure;
use super::super::report::ReportPipe;
use super::super::{ContainerSpec, FailureKind, bundle};
use super::{ExecOrder, Streams};

/// A container between `create` and `start`.
pub(super) struct Waiting {
    container: Container,
    report: ReportPipe,
}

/// Creates the container of the bundle in the working directory.
pub(super) fn create(spec: &ContainerSpec, streams: &Streams) -> Result<(Pid, Waiting), Failure> {
    let failed = Failure::doing(FailureKind::Host, "open the pipes of the container");
    let (mut report, reporting) = ReportPipe::open().map_err(&failed)?;
    let payload = Payload { init: spec.init, filtered: !spec.privileges.unfiltered };
    let built = builder(&spec.id, payload, streams).map_err(&failed)?.and_then(|builder| {
        let here = std::env::current_dir().map_err(LibcontainerError::OtherIO)?;
        builder.as_init(here).with_systemd(false).build()
    });
    drop(reporting);
    let container = built.map_err(|error| report.explain(&error))?;
    let pid = container.pid().map(|pid| Pid::from_raw(pid.as_raw()));
    let pid = pid.ok_or_else(|| Failure::host("the created container has no process"))?;
    Ok((pid, Waiting { container, report }))
}

/// Runs a further command; returns when it is executed.
pub(super) fn exec(order: &ExecOrder<'_>) -> Result<Pid, Failure> {
    let failed = Failure::doing(FailureKind::Host, "open the pipes of the command");
    let (mut report, reporting) = ReportPipe::open().map_err(&failed)?;
    let payload = Payload { init: false, filtered: order.filtered };
    let built = builder(&order.spec.id, payload, &order.streams).map_err(&failed)?.and_then(|builder| {
        let tenant = builder.as_tenant().with_process(Some(&order.process));
        tenant.with_detach(order.streams.console().is_some()).build()
    });
    drop(reporting);
    remove_sockets(&order.spec.id);
    let pid = built.map_err(|error| report.explain(&error))?;
    report.executed()?;
    Ok(Pid::from_raw(pid.as_raw()))
}

/// libcontainer leaves a socket behind for each command; health checks are many.
fn remove_sockets(id: &str) {
    let directory = Path::new(bundle::LIBCONTAINER).join(id);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("tenant-") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn builder(id: &str, payload: Payload, streams: &Streams) -> io::Result<Result<ContainerBuilder, LibcontainerError>> {
    let root = std::env::current_dir()?.join(bundle::LIBCONTAINER);
    let builder = ContainerBuilder::new(id.to_owned(), SyscallType::default()).with_root_path(root);
    let pipes = streams.cloned_pipes()?;
    Ok(builder.map(|builder| {
        let builder = builder.with_executor(payload).with_console_socket(streams.console());
        match pipes {
            Some([stdin, stdout, stderr]) => builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr),
            None => builder,
        }
    }))
}

impl Waiting {
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        self.container.start().map_err(|error| self.report.explain(&error))?;
        self.report.executed()
    }
}
