//! Ends that were not planned: the daemon's, the shim's, the host's.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shoal_runtime::container::{ContainerState, Runtime, RuntimeError, ShimCommand};

use super::Case;
use super::lab::{Lab, eventually, open, output, processes_with, until_output, within};

pub(crate) const CASES: &[Case] = &[
    ("containers_survive_the_daemon_and_are_adopted", containers_survive_the_daemon_and_are_adopted),
    (
        "a_daemon_killed_at_any_stage_leaves_what_can_be_adopted",
        a_daemon_killed_at_any_stage_leaves_what_can_be_adopted,
    ),
    ("a_killed_shim_takes_its_container_along", a_killed_shim_takes_its_container_along),
    ("a_frozen_shim_does_not_keep_its_container", a_frozen_shim_does_not_keep_its_container),
    ("after_a_reboot_the_dead_are_told_and_removed", after_a_reboot_the_dead_are_told_and_removed),
    ("two_daemons_cannot_share_a_directory", two_daemons_cannot_share_a_directory),
    ("broken_bundles_do_not_keep_the_daemon_from_opening", broken_bundles_do_not_keep_the_daemon_from_opening),
];

/// `containers daemon STATE_DIR CGROUP_PARENT`: starts three containers, says so, and waits to be killed.
pub(crate) fn daemon(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let state_dir = PathBuf::from(arguments.next().unwrap());
    let mut lab = Lab::new();
    lab.cgroup_parent = arguments.next().unwrap().into_string().unwrap();
    lab.block_on(async {
        let runtime = open(state_dir).await;
        for (id, script) in
            [("lasting", "echo up; sleep 1; echo later; exit 9"), ("short", "exit 4"), ("waiting", "exit 6")]
        {
            runtime.create(&lab.spec(id, script)).await.unwrap();
        }
        runtime.start("lasting").await.unwrap();
        runtime.start("short").await.unwrap();
        println!("ready");
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

fn containers_survive_the_daemon_and_are_adopted(lab: &Lab) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.arg("daemon").arg(lab.state_dir()).arg(&lab.cgroup_parent);
    // Killed, it can remove nothing; so all that it makes is within what this test removes.
    child.env("TMPDIR", lab.top());
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child.kill().unwrap();
    child.wait().unwrap();
    lab.block_on(async {
        let runtime = lab.open().await;
        let listed: Vec<(String, bool)> = runtime
            .list()
            .into_iter()
            .map(|status| {
                assert_eq!(status.labels["task"], status.id);
                (status.id, matches!(status.state, ContainerState::Created { .. }))
            })
            .collect();
        assert_eq!(listed, [("lasting".to_owned(), false), ("short".to_owned(), false), ("waiting".to_owned(), true)]);
        runtime.start("waiting").await.unwrap();
        for (id, code) in [("lasting", 9), ("short", 4), ("waiting", 6)] {
            let exit = within(runtime.wait(id)).await.unwrap();
            assert_eq!((exit.code, exit.error, exit.started_at_ms > 0), (code, None, true), "{id}");
        }
        assert_eq!(output(&runtime, "lasting").await, "up\nlater\n");
        for id in ["lasting", "short", "waiting"] {
            runtime.remove(id).await.unwrap();
        }
    });
}

/// `containers stages STATE_DIR CGROUP_PARENT`: takes containers through their lives, over and over, until killed.
pub(crate) fn stages(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let state_dir = PathBuf::from(arguments.next().unwrap());
    let mut lab = Lab::new();
    lab.cgroup_parent = arguments.next().unwrap().into_string().unwrap();
    lab.block_on(async {
        let runtime = open(state_dir).await;
        // The first spec makes the tools' layer, which takes longer than a container's whole life.
        let _ = lab.spec("first", "true");
        println!("ready");
        for number in 0.. {
            let id = format!("staged-{number}");
            runtime.create(&lab.spec(&id, "echo up; while :; do sleep 0.05; done")).await.unwrap();
            runtime.start(&id).await.unwrap();
            runtime.stop(&id, libc::SIGKILL, std::time::Duration::ZERO).await.unwrap();
            runtime.remove(&id).await.unwrap();
        }
    });
    ExitCode::SUCCESS
}

/// Kills the daemon at one moment after the other, through all of a container's life and some more.
fn a_daemon_killed_at_any_stage_leaves_what_can_be_adopted(lab: &Lab) {
    let mut stages_seen = std::collections::BTreeSet::new();
    for round in 0..40_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.arg("stages").arg(lab.state_dir()).arg(&lab.cgroup_parent).env("TMPDIR", lab.top());
        let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(round * 7));
        child.kill().unwrap();
        child.wait().unwrap();
        lab.block_on(async {
            let runtime = lab.open().await;
            for status in runtime.list() {
                let id = status.id.as_str();
                stages_seen.insert(match status.state {
                    ContainerState::Created { .. } => {
                        runtime.start(id).await.unwrap();
                        "created"
                    }
                    ContainerState::Running { .. } => "running",
                    ContainerState::Exited(_) => "exited",
                });
                within(runtime.remove(id)).await.unwrap();
            }
            assert!(runtime.list().is_empty());
        });
    }
    println!("  stages met: {stages_seen:?}");
    assert!(stages_seen.len() > 1, "the kills met no container: {stages_seen:?}");
}

fn shims(lab: &Lab) -> Vec<i32> {
    processes_with(lab.state_dir().to_str().unwrap())
}

fn a_killed_shim_takes_its_container_along(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let pid = runtime.create(&lab.spec("orphan", "echo up; sleep 1000 & sleep 1000")).await.unwrap().pid;
        runtime.start("orphan").await.unwrap();
        until_output(&runtime, "orphan", "up").await;
        let shims = shims(lab);
        assert_eq!(shims.len(), 1);
        kill(Pid::from_raw(shims[0]), Signal::SIGKILL).unwrap();
        let exit = within(runtime.wait("orphan")).await.unwrap();
        assert_eq!(exit.code, 137);
        assert!(exit.error.unwrap().contains("shim was killed"));
        eventually("its process is gone", || !PathBuf::from(format!("/proc/{pid}/root/bin")).exists());
        runtime.remove("orphan").await.unwrap();
        // The same while it is only created.
        runtime.create(&lab.spec("orphan", "true")).await.unwrap();
        kill(Pid::from_raw(self::shims(lab)[0]), Signal::SIGKILL).unwrap();
        within(runtime.wait("orphan")).await.unwrap();
        runtime.remove("orphan").await.unwrap();
    });
}

fn a_frozen_shim_does_not_keep_its_container(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        runtime.create(&lab.spec("frozen", "sleep 1000")).await.unwrap();
        runtime.start("frozen").await.unwrap();
        kill(Pid::from_raw(shims(lab)[0]), Signal::SIGSTOP).unwrap();
        within(runtime.remove("frozen")).await.unwrap();
        assert!(runtime.list().is_empty());
    });
}

/// A reboot leaves the files, and neither processes nor cgroups.
fn after_a_reboot_the_dead_are_told_and_removed(lab: &Lab) {
    let bundle = lab.state_dir().join("containers/ghost");
    fs::create_dir_all(bundle.join("upper/some/dir")).unwrap();
    fs::write(bundle.join("spec.json"), serde_json::to_vec(&lab.spec("ghost", "true")).unwrap()).unwrap();
    drop(
        std::os::unix::net::UnixListener::bind(std::path::Path::new("/proc/self/cwd").join(relative(&bundle))).unwrap(),
    );
    lab.block_on(async {
        let runtime = lab.open().await;
        let exit = runtime.wait("ghost").await.unwrap();
        assert!(exit.error.as_deref().unwrap().contains("host restarted"), "{exit:?}");
        drop(runtime);
        let runtime = reopen(lab).await;
        assert_eq!(runtime.wait("ghost").await.unwrap(), exit, "settled once and for all");
        runtime.remove("ghost").await.unwrap();
    });
}

/// The bundle's path is longer than a socket's address may be, so the working directory is moved there for a moment.
fn relative(bundle: &std::path::Path) -> PathBuf {
    std::env::set_current_dir(bundle).unwrap();
    PathBuf::from("socket")
}

async fn reopen(lab: &Lab) -> Runtime {
    lab.open().await
}

fn two_daemons_cannot_share_a_directory(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let exe = std::env::current_exe().unwrap();
        let second = Runtime::open(lab.state_dir(), ShimCommand { exe, runtime: None }).await;
        assert!(matches!(second, Err(RuntimeError::InUse(_))));
        drop(runtime);
        reopen(lab).await;
    });
}

fn broken_bundles_do_not_keep_the_daemon_from_opening(lab: &Lab) {
    let containers = lab.state_dir().join("containers");
    fs::create_dir_all(containers.join("empty")).unwrap();
    fs::create_dir_all(containers.join("torn/upper")).unwrap();
    fs::write(containers.join("torn/spec.json"), "{\"id\":").unwrap();
    fs::write(containers.join("stray"), "file").unwrap();
    lab.block_on(async {
        assert!(lab.open().await.list().is_empty());
    });
    fs::remove_file(containers.join("stray")).unwrap();
}
