//! What a container sees and what it may not do.

use std::fs;
use std::process::{Command, ExitCode};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use shoal_runtime::container::{ContainerSpec, Limits};

use super::Case;
use super::lab::{Lab, until_output};

pub(crate) const CASES: &[Case] = &[
    ("the_files_of_etc_are_those_of_the_spec", the_files_of_etc_are_those_of_the_spec),
    ("users_are_those_of_the_image", users_are_those_of_the_image),
    ("a_container_is_process_one_and_alone", a_container_is_process_one_and_alone),
    ("nothing_of_the_daemon_leaks_in", nothing_of_the_daemon_leaks_in),
    ("a_container_sees_its_own_groups_where_programs_look", a_container_sees_its_own_groups_where_programs_look),
    ("privileges_are_dropped", privileges_are_dropped),
    ("loopback_is_up_and_nothing_else_is_there", loopback_is_up_and_nothing_else_is_there),
    ("a_read_only_root_cannot_be_written", a_read_only_root_cannot_be_written),
    ("what_one_writes_no_other_sees", what_one_writes_no_other_sees),
    ("a_network_namespace_with_a_sys_of_its_own_will_do", a_network_namespace_with_a_sys_of_its_own_will_do),
    ("cgroup_v2_alone_will_do", cgroup_v2_alone_will_do),
];

fn the_files_of_etc_are_those_of_the_spec(lab: &Lab) {
    let script = "cat /etc/hostname /etc/resolv.conf /etc/hosts; cat /proc/sys/kernel/hostname; echo $HOSTNAME $HOME";
    let (exit, text) = lab.run(&lab.spec("etc", script));
    assert_eq!(exit.code, 0);
    assert!(text.starts_with("lab\nnameserver 10.1.2.3\nsearch shoal.internal\n127.0.0.1\tlocalhost\n"), "{text}");
    assert!(text.contains("10.9.8.7\tlab\n") && text.ends_with("lab\nlab /root\n"), "{text}");
}

fn users_are_those_of_the_image(lab: &Lab) {
    for (user, expected) in [
        ("", "uid=0(root) gid=0(root)"),
        ("web", "uid=1234(web) gid=1235(web) groups=1235(web),1300(logs)"),
        ("web:logs", "uid=1234(web) gid=1300(logs)"),
        ("77:88", "uid=77 gid=88"),
    ] {
        let spec = ContainerSpec { user: user.to_owned(), ..lab.spec("user", "id; echo x >/dev/stdout; echo $HOME") };
        let (exit, text) = lab.run(&spec);
        assert_eq!((exit.code, text.starts_with(expected)), (0, true), "{user}: {text}");
    }
}

fn a_container_is_process_one_and_alone(lab: &Lab) {
    let (_, text) = lab.run(&lab.spec("alone", "echo $$; ls /proc/1/task; ls / /dev; cat /proc/1/cgroup"));
    assert!(text.starts_with("1\n1\n"), "{text}");
    for name in ["null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "mqueue", "ptmx", "fd", "stdin"] {
        assert!(text.lines().any(|line| line == name), "/dev/{name} is missing: {text}");
    }
    assert!(!text.contains("shoal-lab"), "the cgroup namespace hides where it is: {text}");
    for line in text.lines().filter(|line| line.contains("::") || line.split(':').count() == 3) {
        assert!(!line.ends_with("/alone"), "{line}");
    }
}

fn nothing_of_the_daemon_leaks_in(lab: &Lab) {
    // Without CLOEXEC, as a careless library would open it.
    let secret = lab.top().join("secret");
    fs::write(&secret, "secret").unwrap();
    let path = std::ffi::CString::new(secret.to_str().unwrap()).unwrap();
    let leaked = nix::fcntl::open(path.as_c_str(), nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty()).unwrap();
    let script =
        "ls -l /proc/self/fd /proc/$$/fd; cat /proc/self/environ; cat /proc/self/status; cat /proc/self/mounts";
    let (_, text) = lab.run(&lab.spec("leak", script));
    drop(leaked);
    for word in ["secret", "socket:", "CARGO", "LD_LIBRARY", "shoal-lab"] {
        assert!(!text.replace(&*lab.cgroup_parent, "").contains(word) || overlay_only(&text, word), "{word}: {text}");
    }
    assert!(text.contains("SigBlk:\t0000000000000000") && text.contains("SigIgn:\t0000000000000000"), "{text}");
}

/// The root's own line in `/proc/mounts` holds the relative names that the shim gave, and nothing of the host.
fn overlay_only(text: &str, word: &str) -> bool {
    text.lines().filter(|line| line.contains(word)).all(|line| line.starts_with("overlay / "))
}

/// On hosts with v1; `cgroup_v2_alone_will_do` looks at the others.
fn a_container_sees_its_own_groups_where_programs_look(lab: &Lab) {
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    if !host.lines().any(|line| line.contains(" - cgroup ") && line.split(' ').nth(4) == Some("/sys/fs/cgroup/memory"))
    {
        return println!("  skipped: this host has no memory controller of cgroup v1");
    }
    let limits = Limits { memory_bytes: Some(32 << 20), pids_max: Some(40), ..Limits::default() };
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max; \
        cat /sys/fs/cgroup/memory/cgroup.procs; ls /sys/fs/cgroup; cat /proc/self/mountinfo";
    let (exit, text) = lab.run(&ContainerSpec { limits, ..lab.spec("sees", script) });
    assert_eq!(exit.code, 0, "{text}");
    assert!(text.starts_with("33554432\n40\n1\n"), "{text}");
    let groups: Vec<&str> = text.lines().filter(|line| line.contains(" - cgroup ")).collect();
    assert!(groups.len() > 1 && !text.contains("shoal-lab"), "{text}");
    for group in groups {
        let fields: Vec<&str> = group.split(' ').collect();
        // Programs that look for their limits compare the mount's root with `/proc/self/cgroup`, which says `/` too.
        assert!(fields[3] == "/" && fields[5].starts_with("ro,"), "{group}");
    }
}

fn privileges_are_dropped(lab: &Lab) {
    let script = "cat /proc/self/status; mknod /dev/disk b 254 0; echo mknod=$?; \
        echo 1 >/proc/sys/kernel/domainname; echo sysctl=$?; ls /sys/firmware /proc/kcore; touch /sys/x; echo sys=$?; \
        ls /proc/scsi; dd if=/proc/kcore count=1; for group in /sys/fs/cgroup /sys/fs/cgroup/*/; do (echo 1 >$group/notify_on_release); touch $group/x && echo $group is writable; done; true";
    let (_, text) = lab.run(&lab.spec("caps", script));
    for expected in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t00000000a00425fb", "CapBnd:\t00000000a00425fb"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    for refused in ["mknod=1", "sysctl=2", "sys=1"] {
        assert!(text.contains(refused), "{refused} in {text}");
    }
    assert!(!text.contains("is writable"), "{text}");
    assert!(
        text.matches("notify_on_release").count()
            == text.matches("notify_on_release: Read-only").count()
                + text.matches("notify_on_release: Directory").count(),
        "{text}"
    );
    let (_, text) = lab.run(&ContainerSpec { user: "web".to_owned(), ..lab.spec("caps", "cat /proc/self/status") });
    for expected in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapAmb:\t0000000000000000"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

fn loopback_is_up_and_nothing_else_is_there(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let created =
            runtime.create(&lab.spec("net", "ls /sys/class/net; cat /sys/class/net/lo/flags; sleep 1000")).await;
        let pid = created.unwrap().pid;
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        assert_ne!(fs::read_link(format!("/proc/{pid}/ns/net")).unwrap(), own);
        runtime.start("net").await.unwrap();
        until_output(&runtime, "net", "lo\n0x9\n").await;
        runtime.remove("net").await.unwrap();
    });
}

fn a_read_only_root_cannot_be_written(lab: &Lab) {
    let spec = ContainerSpec {
        readonly_rootfs: true,
        ..lab.spec("ro", "cat /etc/hostname; touch /x; echo touch=$?; touch /dev/shm/x; echo shm=$?")
    };
    let (_, text) = lab.run(&spec);
    assert!(text.starts_with("lab\n") && text.contains("touch=1") && text.contains("shm=0"), "{text}");
}

fn what_one_writes_no_other_sees(lab: &Lab) {
    let (exit, _) = lab.run(&lab.spec("one", "touch /tmp/mine /bin/mine"));
    assert_eq!(exit.code, 0);
    let (_, text) = lab.run(&lab.spec("two", "ls /tmp /bin"));
    assert!(!text.contains("mine"), "{text}");
}

/// `ip netns exec` mounts a new `/sys`, in which there are no cgroups.
fn a_network_namespace_with_a_sys_of_its_own_will_do(_: &Lab) {
    run_apart("hidden");
}

/// Runs a part of a test that changes its own mounts, in a process of its own.
fn run_apart(part: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap()).arg(part).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    let left = super::lab::cgroups_named(&format!("shoal-lab-{}", child.id()));
    assert!(left.is_empty(), "{left:?}");
}

fn cgroup_v2_alone_will_do(_: &Lab) {
    run_apart("unified");
}

/// `containers unified`: as on a host without v1. Which controllers v2 has here depends on the host, so that only
/// what needs none is tried.
pub(crate) fn with_cgroup_v2() -> ExitCode {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), None::<&str>).unwrap();
    let lab = Lab::new();
    let (exit, text) =
        lab.run(&lab.spec("v2", "cat /proc/1/cgroup; touch /sys/fs/cgroup/x || cat /sys/fs/cgroup/cgroup.procs"));
    assert_eq!(exit.code, 0, "{text}");
    assert!(text.contains("0::/\n") && text.contains("1\n"), "{text}");
    if !fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap().contains("memory") {
        a_limit_that_cannot_be_held_is_refused(&lab);
    }
    leave_to_sweep(&lab);
    lab.assert_nothing_left();
    super::lab::remove_tools();
    ExitCode::SUCCESS
}

/// Where v1 has the controllers, v2 has none.
fn a_limit_that_cannot_be_held_is_refused(lab: &Lab) {
    let memory_bytes = Some(32 * 1024 * 1024);
    let spec = |where_possible| ContainerSpec {
        limits: Limits { memory_bytes, where_possible, ..Limits::default() },
        ..lab.spec("limited", "exit 3")
    };
    let error = lab.block_on(async { lab.open().await.create(&spec(false)).await.unwrap_err().to_string() });
    assert!(error.contains("the limit on memory cannot be held"), "{error}");
    assert_eq!(lab.run(&spec(true)).0.code, 3);
}

/// `containers hidden`: the part of the above that needs a process of its own.
pub(crate) fn behind_a_new_sys() -> ExitCode {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
    assert!(fs::read_dir("/sys/fs/cgroup").unwrap().next().is_none());
    let lab = Lab::new();
    let limits = Limits { memory_bytes: Some(32 * 1024 * 1024), ..Limits::default() };
    let spec = ContainerSpec { limits, ..lab.spec("hidden", "x=aaaaaaaa; while :; do x=$x$x; done") };
    let (exit, _) = lab.run(&spec);
    assert_eq!((exit.signal, exit.oom), (Some(9), true));
    leave_to_sweep(&lab);
    lab.assert_nothing_left();
    super::lab::remove_tools();
    ExitCode::SUCCESS
}

/// Kills a shim, so that its cgroup is removed by another one.
fn leave_to_sweep(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        runtime.create(&lab.spec("left", "sleep 1000")).await.unwrap();
        runtime.start("left").await.unwrap();
        let shim = super::lab::processes_with(lab.state_dir().to_str().unwrap())[0];
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
        runtime.wait("left").await.unwrap();
        runtime.remove("left").await.unwrap();
    });
}
