//! The last steps of a process inside a container, and the search for its command.
//!
//! Input: the OCI spec, in a process that libcontainer has put into the container. Output: that process has become the
//! command, or has told why not ([`super::report`]). [`Payload`] ties it to its shim, resets signals, installs the
//! system call filter, if asked for leaves a reaping first process behind, and executes.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{AccessFlags, access, execv};

use super::protocol::Failure;
use super::report::fail;
use super::{FailureKind, WindowSize, console, reaper, seccomp};

/// What runs inside the container's first process, before it becomes the command.
#[derive(Clone)]
pub(super) struct Payload {
    /// Whether a first process of ours stays, as the parent of the command.
    pub(super) init: bool,
    /// Whether the system call filter is installed.
    pub(super) filtered: bool,
}

impl Executor for Payload {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        // The pid namespace ends with its first process: a killed shim takes its container along.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        match executable(spec) {
            Ok(_) => Ok(()),
            Err(failure) => Err(ExecutorValidationError::ArgValidationError(fail(failure))),
        }
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        match self.execute(spec) {
            Ok(never) => match never {},
            Err(failure) => Err(ExecutorError::Other(fail(failure))),
        }
    }
}

impl Payload {
    fn execute(&self, spec: &Spec) -> Result<Infallible, Failure> {
        let path = executable(spec)?;
        let to_c = |text: &str| {
            CString::new(text)
                .map_err(|_| Failure::new(FailureKind::CommandNotExecutable, "an argument holds a NUL byte"))
        };
        let arguments = arguments(spec).iter().map(|argument| to_c(argument)).collect::<Result<Vec<_>, _>>()?;
        let program = to_c(&path.to_string_lossy())?;
        reset_signals();
        size_terminal(spec);
        if self.filtered {
            let held = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
            let held = held.and_then(|sets| sets.bounding().as_ref()).into_iter().flatten();
            let names: Vec<String> = held.map(|capability| format!("CAP_{capability}")).collect();
            seccomp::install(&names).map_err(Failure::doing(FailureKind::Host, "install the system call filter"))?;
        }
        if self.init {
            reaper::fork_command().map_err(Failure::doing(FailureKind::Host, "fork the command"))?;
        }
        execv(&program, &arguments).map_err(|errno| not_executed(&arguments_name(spec), errno))
    }
}

/// Gives the terminal the size that its operator's has, before the command asks. One of another size still works.
fn size_terminal(spec: &Spec) {
    let size = spec.process().as_ref().and_then(|process| process.console_size());
    let length = |length: u64| u16::try_from(length).unwrap_or(u16::MAX);
    if let Some(size) = size {
        let size = WindowSize { rows: length(size.height()), columns: length(size.width()) };
        let _ = console::resize(io::stdin().as_fd(), size);
    }
}

fn not_executed(name: &str, errno: Errno) -> Failure {
    match errno {
        Errno::ENOENT => {
            let message = format!("executable {name:?} cannot be run: its interpreter or dynamic loader is missing");
            Failure::new(FailureKind::CommandNotFound, message)
        }
        Errno::ENOEXEC => {
            let message = format!("executable {name:?} cannot be run: exec format error (wrong platform?)");
            Failure::new(FailureKind::CommandNotExecutable, message)
        }
        errno => {
            let message = format!("executable {name:?} cannot be run: {}", errno.desc().to_lowercase());
            Failure::new(FailureKind::CommandNotExecutable, message)
        }
    }
}

/// Ignored signals and the mask survive an `exec`; the shim's, and those that it inherited, must not reach the command.
#[expect(unsafe_code, reason = "the C library hides two signals of its own, which a careless parent may have ignored")]
fn reset_signals() {
    // A kernel `sigaction` of zeroes means the default; it is 32 bytes on all 64-bit Linux platforms.
    let default = [0_u64; 4];
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the kernel reads 32 bytes at the address of 32; numbers that cannot be set are refused without effect.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

fn arguments(spec: &Spec) -> &[String] {
    spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or_default()
}

fn arguments_name(spec: &Spec) -> String {
    arguments(spec).first().cloned().unwrap_or_default()
}

/// Finds the command as `execvp` would, but tells apart what is missing and what is forbidden.
fn executable(spec: &Spec) -> Result<PathBuf, Failure> {
    let name = arguments_name(spec);
    if name.contains('/') {
        return check(Path::new(&name)).map_err(|error| refusal(&name, &error, ""));
    }
    let environment = spec.process().as_ref().and_then(|process| process.env().as_deref()).unwrap_or_default();
    let search = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut refused = None;
    for directory in search.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        match check(&Path::new(directory).join(&name)) {
            Ok(path) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused = Some(error),
            Err(_) => {}
        }
    }
    Err(match refused {
        Some(error) => refusal(&name, &error, ""),
        None => refusal(&name, &io::Error::from(io::ErrorKind::NotFound), " in $PATH"),
    })
}

fn check(path: &Path) -> io::Result<PathBuf> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    access(path, AccessFlags::X_OK)?;
    Ok(path.to_path_buf())
}

fn refusal(name: &str, error: &io::Error, place: &str) -> Failure {
    let (kind, reason) = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => (FailureKind::CommandNotFound, " not found"),
        io::ErrorKind::IsADirectory => (FailureKind::CommandNotExecutable, " is not a regular file"),
        _ => (FailureKind::CommandNotExecutable, ": permission denied"),
    };
    Failure::new(kind, format!("executable {name:?}{reason}{place}"))
}
