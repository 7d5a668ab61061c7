//! The shim: one small single-threaded process per container, which outlives the daemon.
//!
//! Input: `shim <bundle>` with a socket to the daemon as standard input, or `shim <bundle> sweep`. Output: a
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
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stdin, dup2_stdout, setsid};

use super::cgroup::{self, Cgroup};
use super::init::{self, Init};
use super::oci::{self, Host};
use super::protocol::{Failure, Greeting, line};
use super::rootfs::{self, Root};
use super::{ContainerSpec, Exit, FailureKind, bundle, network, user};

mod serve;

/// Runs a shim in place of the daemon. To be called with what follows `shim` on the command line, before the process
/// has any thread, runtime or logger, and without arguments of its own to parse.
#[must_use]
pub fn shim_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let (bundle, mode) = (arguments.next(), arguments.next());
    let result = match (bundle, mode.as_ref().and_then(|mode| mode.to_str())) {
        (Some(bundle), None) => run(Path::new(&bundle)),
        (Some(bundle), Some("sweep")) => sweep(Path::new(&bundle)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: shim BUNDLE [sweep]; only the daemon runs this")),
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

fn run(bundle: &Path) -> io::Result<()> {
    let daemon = take_stdin()?;
    env::set_current_dir(bundle)?;
    let listener = UnixListener::bind(bundle::SOCKET)?;
    let spec: ContainerSpec = bundle::read(Path::new(""), bundle::SPEC)?;
    let outcome = enter_private_namespace().map_err(|failure| failure.message).and_then(|()| {
        Cgroup::locate(cgroup_path(&spec)).map_err(|error| format!("cannot read the cgroup mounts: {error}"))
    });
    let cgroup = match outcome {
        Ok(cgroup) => cgroup,
        Err(message) => return refuse(&daemon, Failure::host(message)),
    };
    match create(&spec, &cgroup) {
        Ok(init) => {
            let served = serve::serve(init, &listener, daemon, &cgroup)?;
            bundle::write_durably(Path::new(""), bundle::EXIT, &served.exit)?;
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
    bundle::write_durably(Path::new(""), bundle::EXIT, &exit)?;
    let mut daemon = daemon;
    let _ = io::Write::write_all(&mut daemon, &line(&Greeting::Failed(failure)));
    Ok(())
}

/// Removes what only a shim can see. The socket goes last: while it exists, something may be left.
fn clean(cgroup: &Cgroup) -> io::Result<()> {
    rootfs::unmount();
    cgroup.remove()?;
    fs::remove_dir_all(bundle::LIBCONTAINER).or_else(ignore_missing)?;
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

/// Takes the connection to the daemon from standard input, drops every other descriptor but standard error, and
/// leaves the daemon's session.
#[expect(unsafe_code, reason = "descriptors inherited over exec have no owner yet")]
fn take_stdin() -> io::Result<UnixStream> {
    // SAFETY: nothing in this process owns a descriptor above 2 yet; a kernel without the call changes nothing.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_int::MAX, 0) };
    let socket = fcntl(io::stdin(), FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the descriptor was made on the line above and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(null.as_fd())?;
    // Fails if the daemon made us a session leader already; either way we have a session of our own.
    let _ = setsid();
    prctl::set_child_subreaper(true)?;
    let _ = prctl::set_name(c"shoal-shim");
    umask(Mode::from_bits_truncate(0o022));
    Ok(UnixStream::from(socket))
}

/// From here on, mounts made by this process are seen by nobody else and end with it.
fn enter_private_namespace() -> Result<(), Failure> {
    let failed = Failure::doing(FailureKind::Host, "enter a mount namespace (is the daemon root?)");
    unshare(CloneFlags::CLONE_NEWNS).map_err(&failed)?;
    // Slave, not private: what the host unmounts later is not held here.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>).map_err(&failed)?;
    cgroup::ensure_mounted().map_err(Failure::doing(FailureKind::Host, "mount the cgroup hierarchies"))
}

fn create(spec: &ContainerSpec, cgroup: &Cgroup) -> Result<Init, Failure> {
    let user = prepare_rootfs(spec)?;
    let failed = Failure::doing(FailureKind::Host, "write the container's configuration");
    let host = host().map_err(Failure::doing(FailureKind::Host, "read the limits of the daemon"))?;
    let config = oci::config(spec, &user, &host).to_string();
    fs::write("config.json", config).map_err(&failed)?;
    let bundle = env::current_dir().map_err(failed)?;
    cgroup.create().map_err(Failure::doing(FailureKind::Host, "make the container's cgroup"))?;
    let created = init::create(&spec.id, &bundle);
    let _ = fs::write("/proc/self/oom_score_adj", host.oom_score_adj.to_string());
    let init = created?;
    let pid = init.container.pid().map(|pid| pid.as_raw()).unwrap_or_default();
    network::raise_loopback(pid).map_err(Failure::doing(FailureKind::Host, "raise the loopback link"))?;
    Ok(init)
}

/// Mounts the layers and does inside what Docker does before a start. Returns the user to run as.
fn prepare_rootfs(spec: &ContainerSpec) -> Result<user::User, Failure> {
    rootfs::mount_layers(&spec.layers)?;
    let root = Root::open(bundle::ROOTFS)
        .map_err(Failure::doing(FailureKind::Rootfs, "open the root file system of the container"))?;
    rootfs::write_etc(&root, spec, &oci::hostname(spec))?;
    root.make_dir(&spec.cwd).map_err(|errno| {
        let reason = errno.desc().to_lowercase();
        Failure::new(FailureKind::WorkingDirectory, format!("working directory {:?}: {reason}", spec.cwd))
    })?;
    user::resolve(&spec.user, &root.read_text("/etc/passwd"), &root.read_text("/etc/group"))
        .map_err(|message| Failure::new(FailureKind::User, message))
}

fn host() -> io::Result<Host> {
    let status = fs::read_to_string("/proc/self/status")?;
    let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap_or_default();
    let oom_score_adj = fs::read_to_string("/proc/self/oom_score_adj")?;
    Ok(Host {
        capabilities: u64::from_str_radix(permitted.trim(), 16).unwrap_or_default(),
        open_files_max: getrlimit(Resource::RLIMIT_NOFILE)?.1,
        oom_score_adj: oom_score_adj.trim().parse().unwrap_or_default(),
        cgroup_paths: cgroup::paths_inside()?,
    })
}
