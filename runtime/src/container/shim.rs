//! The shim: one small single-threaded process per container, which outlives the daemon.
//!
//! Input: `shim <bundle> run [<runtime>]` with a socket to the daemon as standard input and a
//! listening one as standard output, or `shim <bundle> sweep`. Output: a
//! container, answers on the bundle's socket, the log, and at last `exit.json`. When its process has ended, the shim
//! removes mounts and cgroup and leaves; the end of its connections is how the daemon learns of it. If the shim is
//! killed, the kernel kills the container with it; `sweep` then removes what was left.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{FcntlArg, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::socket::{Backlog, listen};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stdin, dup2_stdout, setsid};

use super::cgroup::{self, Cgroup};
use super::driver::Driver;
use super::protocol::{Failure, Greeting, line};
use super::{ContainerSpec, Exit, FailureKind, bundle, rootfs};

/// Kept back on disk for the last word, in bytes: the file of an exit and its directory entry.
const RESERVE_BYTES: usize = 16 * 1024;

mod clients;
mod exec;
mod lease;
mod make;
mod serve;
mod taps;

/// Runs a shim in place of the daemon. To be called with what follows `shim` on the command line, before the process
/// has any thread, runtime or logger, and without arguments of its own to parse.
#[must_use]
pub fn shim_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let (bundle, mode, runtime) = (arguments.next(), arguments.next(), arguments.next());
    let driver = runtime.map_or(Driver::Native, |path| Driver::External(path.into()));
    let result = match (bundle, mode.as_ref().and_then(|mode| mode.to_str())) {
        (Some(bundle), Some("run")) => run(Path::new(&bundle), &driver),
        (Some(bundle), Some("sweep")) => sweep(Path::new(&bundle)),
        _ => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: shim BUNDLE run|sweep; only the daemon runs this"))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is a file in the bundle.
            let _ = io::Write::write_all(&mut io::stderr(), format!("shim: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

fn run(bundle: &Path, driver: &Driver) -> io::Result<()> {
    let (daemon, listener) = take_sockets()?;
    env::set_current_dir(bundle)?;
    let spec: ContainerSpec = bundle::read(Path::new(""), bundle::SPEC)?;
    fs::write(bundle::RESERVE, [0; RESERVE_BYTES])?;
    let outcome = enter_private_namespace().map_err(|failure| failure.message).and_then(|()| {
        Cgroup::locate(cgroup_path(&spec)).map_err(|error| format!("cannot read the cgroup mounts: {error}"))
    });
    let cgroup = match outcome {
        Ok(cgroup) => cgroup,
        Err(message) => return refuse(&daemon, Failure::host(message)),
    };
    match make::make(&spec, &cgroup, driver) {
        Ok(container) => {
            forget_setup();
            let served = serve::serve(container, &listener, daemon, &cgroup, driver)?;
            write_exit(&served.exit)?;
            clean(&cgroup)
        }
        Err(failure) => {
            // Cleaned first: whoever hears of the failure may make the same container again at once.
            let cleaned = clean(&cgroup);
            refuse(&daemon, failure)?;
            cleaned
        }
    }
}

/// Writes down the end, on a full disk too: what was kept back for it goes first, then the container's own log.
fn write_exit(exit: &Exit) -> io::Result<()> {
    let write = || bundle::write(Path::new(""), bundle::EXIT, exit);
    let _ = fs::remove_file(bundle::RESERVE);
    write().or_else(|_| {
        let _ = fs::remove_file(bundle::LOG);
        write()
    })
}

/// Reports that there will be no container, to the daemon and to its successor.
fn refuse(daemon: &UnixStream, failure: Failure) -> io::Result<()> {
    let exit = Exit {
        code: failure.kind.exit_code(),
        signal: None,
        oom: false,
        error: Some(failure.message.clone()),
        finished_at_ms: now_ms(),
        started_at_ms: 0,
    };
    write_exit(&exit)?;
    let mut daemon = daemon;
    let _ = io::Write::write_all(&mut daemon, &line(&Greeting::Failed(failure)));
    Ok(())
}

/// Removes what only a shim can see. The socket goes last: while it exists, something may be left.
fn clean(cgroup: &Cgroup) -> io::Result<()> {
    rootfs::unmount();
    cgroup.remove()?;
    fs::remove_file(bundle::SOCKET)
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Kills and removes what a shim that was killed itself has left.
fn sweep(bundle: &Path) -> io::Result<()> {
    env::set_current_dir(bundle)?;
    let spec: ContainerSpec = bundle::read(Path::new(""), bundle::SPEC)?;
    enter_private_namespace().map_err(|failure| io::Error::other(failure.message))?;
    Cgroup::locate(cgroup_path(&spec))?.remove()?;
    fs::remove_file(bundle::SOCKET).or_else(ignore_missing)
}

fn cgroup_path(spec: &ContainerSpec) -> PathBuf {
    Path::new(spec.cgroup_parent.trim_matches('/')).join(&spec.id)
}

/// Takes the connection to the daemon from standard input and the bundle's socket from standard output, drops every other descriptor but standard error, and
/// leaves the daemon's session.
#[expect(unsafe_code, reason = "descriptors inherited over exec have no owner yet")]
fn take_sockets() -> io::Result<(UnixStream, UnixListener)> {
    // SAFETY: nothing in this process owns a descriptor above 2 yet; a kernel without the call changes nothing.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_int::MAX, 0) };
    let socket = fcntl(io::stdin(), FcntlArg::F_DUPFD_CLOEXEC(3))?;
    let listener = fcntl(io::stdout(), FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the descriptors were made on the lines above and belong to nobody else.
    let (socket, listener) = unsafe { (OwnedFd::from_raw_fd(socket), OwnedFd::from_raw_fd(listener)) };
    let listener = UnixListener::from(listener);
    // Again, by this process: whoever connects learns from it whom to kill if nobody answers.
    listen(&listener, Backlog::MAXCONN)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(null.as_fd())?;
    // Fails if the daemon made us a session leader already; either way we have a session of our own.
    let _ = setsid();
    prctl::set_child_subreaper(true)?;
    let _ = prctl::set_name(c"shoal-shim");
    umask(Mode::from_bits_truncate(0o022));
    Ok((UnixStream::from(socket), listener))
}

/// From here on, mounts made by this process are seen by nobody else and end with it.
fn enter_private_namespace() -> Result<(), Failure> {
    let failed = Failure::doing(FailureKind::Host, "enter a mount namespace (is the daemon root?)");
    unshare(CloneFlags::CLONE_NEWNS).map_err(&failed)?;
    // Slave, not private: what the host unmounts later is not held here.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>).map_err(&failed)?;
    cgroup::ensure_mounted().map_err(Failure::doing(FailureKind::Host, "mount the cgroup hierarchies"))
}

/// Gives back the memory that creation needed: a shim waits for days and there are many.
#[expect(unsafe_code, reason = "the allocator's own call has no safe form")]
fn forget_setup() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no arguments that could be wrong; the allocator is not in use by anybody else.
    unsafe {
        libc::malloc_trim(0);
    }
}
