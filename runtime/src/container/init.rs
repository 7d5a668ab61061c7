//! The last steps of a container's first process, and its creation through libcontainer.
//!
//! Input: a bundle whose root file system is mounted. Output: a [`Container`] that waits for its start, the read ends
//! of its output, and a pipe that tells why it could not run. [`Payload`] is code that runs *inside*, just before
//! the command: it ties the process to its shim, resets signals, installs the system call filter and executes.

use std::error::Error;
use std::ffi::CString;
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{AccessFlags, access, execv, pipe2};
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, span};

use super::protocol::Failure;
use super::{FailureKind, bundle, seccomp};

/// Most that is read from the pipe on which a starting container explains itself.
const REPORT_BYTES_MAX: u64 = 64 * 1024;

/// Most of libcontainer's own words in an error message.
const TRACE_BYTES_MAX: usize = 600;

/// The write end of the report pipe: in the shim while it creates, in the container's first process until it executes.
/// Global because libcontainer clones executors and emits events in processes of its own.
static REPORT: AtomicI32 = AtomicI32::new(NO_REPORT);

const NO_REPORT: RawFd = -1;

/// A container between `create` and `start`.
pub(super) struct Init {
    pub(super) container: Container,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// Ends when the command has been executed; holds a report if it could not be.
    pub(super) report: File,
}

/// One line on the report pipe.
#[derive(Serialize, Deserialize)]
enum Report {
    Failure(Failure),
    Trace(String),
}

/// Creates the container of the bundle in the working directory.
pub(super) fn create(id: &str, bundle: &Path) -> Result<Init, Failure> {
    let failed = Failure::doing(FailureKind::Host, "open the pipes of the container");
    let (stdout, stdout_end) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from).map_err(&failed)?;
    let (stderr, stderr_end) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from).map_err(&failed)?;
    let (report, report_end) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(io::Error::from).map_err(&failed)?;
    let stdin = File::open("/dev/null").map_err(&failed)?;
    fs::create_dir_all(bundle::LIBCONTAINER).map_err(&failed)?;
    // Set once per shim; libcontainer's errors name no causes, its events do.
    let _ = tracing::subscriber::set_global_default(Tracer);
    REPORT.store(report_end.as_raw_fd(), Ordering::Relaxed);
    let built = build(id, bundle, stdin.into(), stdout_end, stderr_end);
    REPORT.store(NO_REPORT, Ordering::Relaxed);
    drop(report_end);
    let mut report = File::from(report);
    match built {
        Ok(container) => Ok(Init { container, stdout, stderr, report }),
        Err(error) => Err(explain(&mut report, &*error)),
    }
}

fn build(
    id: &str,
    bundle: &Path,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> Result<Container, Box<dyn Error>> {
    let container = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(bundle.join(bundle::LIBCONTAINER))?
        .with_stdin(stdin)
        .with_stdout(stdout)
        .with_stderr(stderr)
        .with_executor(Payload)
        .as_init(bundle)
        .with_systemd(false)
        .build()?;
    Ok(container)
}

/// Starts the command and waits until it is executed, or has failed to be.
pub(super) fn start(container: &mut Container, report: &mut File) -> Result<(), Failure> {
    container.start().map_err(|error| explain(report, &error))?;
    wait_readable(report);
    match read_reports(report) {
        (Some(failure), _) => Err(failure),
        (None, _) => Ok(()),
    }
}

/// The pipe does not block for its writers; this reader wants to wait for its end.
fn wait_readable(report: &File) {
    let _ = nix::fcntl::fcntl(report, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()));
}

/// Puts the best reason known into words: what our own code said, else libcontainer's events, else its error.
fn explain(report: &mut File, error: &dyn Error) -> Failure {
    let (failure, trace) = read_reports(report);
    failure.unwrap_or_else(|| {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        let trace = if trace.is_empty() { text } else { trace };
        Failure::host(format!("cannot create the container: {trace}"))
    })
}

fn read_reports(report: &mut File) -> (Option<Failure>, String) {
    let mut bytes = Vec::new();
    // A pipe that would block has told all it will.
    let _ = report.take(REPORT_BYTES_MAX).read_to_end(&mut bytes);
    let mut trace = String::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(Report::Failure(failure)) => return (Some(failure), trace),
            Ok(Report::Trace(text)) if trace.len() + text.len() < TRACE_BYTES_MAX => {
                let _ = write!(trace, "{}{text}", if trace.is_empty() { "" } else { "; " });
            }
            Ok(Report::Trace(_)) | Err(_) => {}
        }
    }
    (None, trace)
}

#[expect(unsafe_code, reason = "a descriptor inherited over fork has no owner to borrow from")]
fn write_report(report: &Report) {
    let Ok(mut bytes) = serde_json::to_vec(report) else { return };
    bytes.push(b'\n');
    // SAFETY: a pointer and its length; without a pipe the descriptor is -1, which the kernel refuses.
    unsafe { libc::write(REPORT.load(Ordering::Relaxed), bytes.as_ptr().cast(), bytes.len()) };
}

/// What runs inside the container's first process, before it becomes the command.
#[derive(Clone)]
struct Payload;

fn fail(failure: Failure) -> String {
    let message = failure.message.clone();
    write_report(&Report::Failure(failure));
    message
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
        match execute(spec) {
            Ok(never) => match never {},
            Err(failure) => Err(ExecutorError::Other(fail(failure))),
        }
    }
}

fn execute(spec: &Spec) -> Result<std::convert::Infallible, Failure> {
    let path = executable(spec)?;
    let to_c = |text: &str| {
        CString::new(text).map_err(|_| Failure::new(FailureKind::CommandNotExecutable, "an argument holds a NUL byte"))
    };
    let arguments = arguments(spec).iter().map(|argument| to_c(argument)).collect::<Result<Vec<_>, _>>()?;
    let program = to_c(&path.to_string_lossy())?;
    reset_signals();
    seccomp::install().map_err(Failure::doing(FailureKind::Host, "install the system call filter"))?;
    execv(&program, &arguments).map_err(|errno| {
        let name = &arguments_name(spec);
        match errno {
            Errno::ENOENT => {
                let message =
                    format!("executable {name:?} cannot be run: its interpreter or dynamic loader is missing");
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
    })
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

/// Hands libcontainer's error events to the report pipe, from whichever of its processes they come.
struct Tracer;

impl tracing::Subscriber for Tracer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Fields(String::new());
        event.record(&mut text);
        write_report(&Report::Trace(text.0));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let separator = if self.0.is_empty() { "" } else { ", " };
        let _ = match field.name() {
            "message" => write!(self.0, "{separator}{value:?}"),
            name => write!(self.0, "{separator}{name} {value:?}"),
        };
    }
}
