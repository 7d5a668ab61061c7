//! From a spec to a waiting container: mounts, files, numbers and descriptors, and then the driver.
//!
//! Input: a [`ContainerSpec`], in the shim's own mount namespace with the bundle as working directory. Output: the
//! container's first process, the shim's ends of its streams, and what a later exec has to know.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::pipe2;

use super::super::cgroup::Cgroup;
use super::super::console::ConsoleSocket;
use super::super::driver::{Driver, Made, Streams};
use super::super::oci::{self, FoundDevice, Host};
use super::super::protocol::Failure;
use super::super::rootfs::{self, Root};
use super::super::user::{self, User};
use super::super::{ContainerSpec, Device, FailureKind, MountSource, bundle, copy_up, network};

/// A container between `create` and `start`, and what the shim holds of it.
pub(super) struct Container {
    pub(super) spec: ContainerSpec,
    pub(super) host: Host,
    pub(super) made: Made,
    /// Where its output is read: two pipes, or the terminal.
    pub(super) outputs: Vec<(OwnedFd, &'static str)>,
    /// Where its input is written, if it may have any.
    pub(super) stdin: Option<OwnedFd>,
    /// Its terminal, if it has one.
    pub(super) terminal: Option<OwnedFd>,
}

pub(super) fn make(spec: &ContainerSpec, cgroup: &Cgroup, driver: &Driver) -> Result<Container, Failure> {
    driver.check(spec)?;
    let user = prepare_rootfs(spec)?;
    let devices = spec.devices.iter().map(find_device).collect::<Result<Vec<_>, _>>()?;
    mount_driver_state().map_err(Failure::doing(FailureKind::Host, "mount a place for the container's state"))?;
    let failed = Failure::doing(FailureKind::Host, "write the container's configuration");
    cgroup.create().map_err(Failure::doing(FailureKind::Host, "make the container's cgroup"))?;
    let spec = with_possible_limits(spec, cgroup)?;
    let mut host = host(cgroup).map_err(Failure::doing(FailureKind::Host, "read the limits of the daemon"))?;
    if driver.takes_cgroup_view() && cgroup.has_v1() {
        host.cgroup_view = Some(mount_cgroup_view(cgroup)?);
    }
    guard_devices(&spec, &host)?;
    let config = oci::config(&spec, &user, &devices, &host, driver.wants_filter()).to_string();
    fs::write(bundle::CONFIG, config).map_err(failed)?;
    let (streams, ends) =
        open_streams(&spec).map_err(Failure::doing(FailureKind::Host, "open the pipes of the container"))?;
    let created = driver.create(&spec, streams);
    if host.cgroup_view.is_some() {
        // The container has its own by now.
        let _ = umount2(bundle::CGROUPS, MntFlags::MNT_DETACH);
    }
    let _ = fs::write("/proc/self/oom_score_adj", host.oom_score_adj.to_string());
    let (made, terminal) = created?;
    network::raise_loopback(made.pid.as_raw()).map_err(Failure::doing(FailureKind::Host, "raise the loopback link"))?;
    assemble(spec, host, made, ends, terminal)
        .map_err(Failure::doing(FailureKind::Host, "take over the streams of the container"))
}

/// The driver's own state is of use to this shim alone, and is written over and over: it never needs to reach a disk.
fn mount_driver_state() -> io::Result<()> {
    bundle::create_private_dir(Path::new(bundle::LIBCONTAINER))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("tmpfs"), bundle::LIBCONTAINER, Some("tmpfs"), flags, Some("mode=700,size=4m"))?)
}

fn mount_cgroup_view(cgroup: &Cgroup) -> Result<PathBuf, Failure> {
    let failed = Failure::doing(FailureKind::Host, "mount the container's cgroups");
    bundle::create_private_dir(Path::new(bundle::CGROUPS)).map_err(&failed)?;
    cgroup.mount_view(Path::new(bundle::CGROUPS)).map_err(&failed)?;
    absolute(bundle::CGROUPS)
}

/// The shim's ends of a container's pipes.
struct Ends {
    outputs: Vec<(OwnedFd, &'static str)>,
    stdin: Option<OwnedFd>,
}

fn open_streams(spec: &ContainerSpec) -> io::Result<(Streams, Ends)> {
    if spec.tty {
        let ends = Ends { outputs: Vec::new(), stdin: None };
        return Ok((Streams::Console(ConsoleSocket::bind(bundle::CONSOLE)?), ends));
    }
    let (stdout, stdout_end) = pipe2(OFlag::O_CLOEXEC)?;
    let (stderr, stderr_end) = pipe2(OFlag::O_CLOEXEC)?;
    let (stdin_end, stdin) = if spec.stdin {
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
        (read_end, Some(write_end))
    } else {
        (File::open("/dev/null")?.into(), None)
    };
    let ends = Ends { outputs: vec![(stdout, "stdout"), (stderr, "stderr")], stdin };
    Ok((Streams::Pipes { stdin: stdin_end, stdout: stdout_end, stderr: stderr_end }, ends))
}

fn assemble(
    spec: ContainerSpec,
    host: Host,
    made: Made,
    mut ends: Ends,
    terminal: Option<OwnedFd>,
) -> io::Result<Container> {
    if let Some(terminal) = &terminal {
        ends.outputs.push((terminal.try_clone()?, "stdout"));
        ends.stdin = if spec.stdin { Some(terminal.try_clone()?) } else { None };
    }
    Ok(Container { spec, host, made, outputs: ends.outputs, stdin: ends.stdin, terminal })
}

/// Mounts the layers and does inside what Docker does before a start. Returns the user to run as.
fn prepare_rootfs(spec: &ContainerSpec) -> Result<User, Failure> {
    rootfs::mount_layers(&spec.layers)?;
    let root = open_root()?;
    rootfs::write_etc(&root, spec, &oci::hostname(spec))?;
    root.make_dir(&spec.cwd).map_err(|errno| {
        let reason = errno.desc().to_lowercase();
        Failure::new(FailureKind::WorkingDirectory, format!("working directory {:?}: {reason}", spec.cwd))
    })?;
    for mount in &spec.mounts {
        prepare_mount(&root, &mount.target, &mount.source)?;
    }
    resolve_user(&root, &spec.user, &spec.groups)
}

pub(super) fn open_root() -> Result<Root, Failure> {
    Root::open(bundle::ROOTFS)
        .map_err(Failure::doing(FailureKind::Rootfs, "open the root file system of the container"))
}

pub(super) fn resolve_user(root: &Root, user: &str, groups: &[String]) -> Result<User, Failure> {
    let group = root.read_text("/etc/group");
    let resolved = user::resolve(user, &root.read_text("/etc/passwd"), &group).and_then(|mut user| {
        user::add_groups(&mut user, groups, &group)?;
        Ok(user)
    });
    resolved.map_err(|message| Failure::new(FailureKind::User, message))
}

fn prepare_mount(root: &Root, target: &str, source: &MountSource) -> Result<(), Failure> {
    let missing = |what: &str, path: &Path| {
        Failure::new(FailureKind::Mount, format!("{what} {} does not exist on this node", path.display()))
    };
    match source {
        MountSource::Bind(path) if !path.exists() => Err(missing("the bind source", path)),
        MountSource::Bind(_) | MountSource::Tmpfs { .. } => Ok(()),
        MountSource::Volume { directory, .. } if !directory.is_dir() => {
            Err(missing("the volume's directory", directory))
        }
        MountSource::Volume { directory, copy } => {
            // What the image has there may be a file or nothing at all.
            let Some(inside) = root.directory(target).filter(|_| *copy) else { return Ok(()) };
            let failed =
                |error| Failure::new(FailureKind::Mount, format!("cannot fill the volume at {target}: {error}"));
            copy_up::fill(&inside, directory).map_err(failed)
        }
    }
}

fn find_device(device: &Device) -> Result<FoundDevice, Failure> {
    let name = device.host.display();
    let refused = |reason: &str| Failure::new(FailureKind::Mount, format!("the device {name} {reason}"));
    let metadata = fs::metadata(&device.host).map_err(|error| refused(&format!("cannot be found: {error}")))?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return Err(refused("is neither a character nor a block device")),
    };
    let (major, minor) = (libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
    Ok(FoundDevice {
        target: device.target.clone(),
        access: device.access.clone(),
        kind,
        major: u64::from(major),
        minor: u64::from(minor),
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// Refuses limits that this host cannot hold, or leaves them out if the spec says so.
fn with_possible_limits(spec: &ContainerSpec, cgroup: &Cgroup) -> Result<ContainerSpec, Failure> {
    let mut spec = spec.clone();
    let limits = &mut spec.limits;
    let where_possible = limits.where_possible;
    let drop_if_missing = |limit: &mut Option<u64>, controller: &str| {
        if limit.is_none() || cgroup.group_with(controller).is_some() {
            return Ok(());
        }
        if where_possible {
            *limit = None;
            return Ok(());
        }
        Err(Failure::host(format!(
            "the limit on {controller} cannot be held: this node's cgroups have no {controller} controller; \
            enable it in the kernel, or leave the limit out"
        )))
    };
    drop_if_missing(&mut limits.memory_bytes, "memory")?;
    drop_if_missing(&mut limits.nano_cpus, "cpu")?;
    drop_if_missing(&mut limits.pids_max, "pids")?;
    Ok(spec)
}

/// Without a device list in the kernel, who may make devices has the host's disks.
fn guard_devices(spec: &ContainerSpec, host: &Host) -> Result<(), Failure> {
    let held = super::super::capabilities::bounding(&spec.privileges, host.capabilities);
    if host.device_list || !held.iter().any(|name| name == "CAP_MKNOD") {
        return Ok(());
    }
    Err(Failure::host("CAP_MKNOD on a node with cgroup v2 alone would hand over all devices of the node; leave it out"))
}

fn host(cgroup: &Cgroup) -> io::Result<Host> {
    let status = fs::read_to_string("/proc/self/status")?;
    let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap_or_default();
    let oom_score_adj = fs::read_to_string("/proc/self/oom_score_adj")?;
    Ok(Host {
        capabilities: u64::from_str_radix(permitted.trim(), 16).unwrap_or_default(),
        ulimits: hard_limits(),
        oom_score_adj: oom_score_adj.trim().parse().unwrap_or_default(),
        cgroup_paths: cgroup.paths_inside(),
        cgroup_view: None,
        device_list: cgroup.group_with("devices").is_some(),
    })
}

#[expect(unsafe_code, reason = "nix names only some of the limits")]
fn hard_limits() -> BTreeMap<&'static str, u64> {
    let read = |(name, number)| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel writes one `rlimit` at the address of one.
        (unsafe { libc::getrlimit(number, &raw mut limit) } == 0).then_some((name, limit.rlim_max))
    };
    oci::ULIMITS.into_iter().filter_map(read).collect()
}

/// The bundle's absolute path: other programs change their working directory.
pub(super) fn absolute(name: &str) -> Result<PathBuf, Failure> {
    let here = env::current_dir().map_err(Failure::doing(FailureKind::Host, "find the bundle"))?;
    Ok(here.join(name))
}
