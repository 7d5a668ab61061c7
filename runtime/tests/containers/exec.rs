//! What can be done with a running container: further commands, counters, processes, its log as it grows.

use std::time::Duration;

use shoal_runtime::container::{
    ContainerProcess, ContainerSpec, Exec, ExecSpec, Limits, LogLimits, Runtime, StartError, WindowSize,
};
use shoal_runtime::log::LogQuery;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Case;
use super::lab::{Lab, processes_with, until_output, within};

pub(crate) const CASES: &[Case] = &[
    ("a_further_command_runs_inside", a_further_command_runs_inside),
    ("a_further_command_that_cannot_run_is_named", a_further_command_that_cannot_run_is_named),
    ("a_further_command_gets_a_terminal", a_further_command_gets_a_terminal),
    ("a_further_command_ends_with_its_container", a_further_command_ends_with_its_container),
    ("many_commands_leave_nothing_behind", many_commands_leave_nothing_behind),
    ("usage_and_processes_are_told", usage_and_processes_are_told),
    ("a_log_is_followed_to_the_end", a_log_is_followed_to_the_end),
];

pub(crate) fn shell(script: &str) -> ExecSpec {
    ExecSpec { args: ["sh", "-c", script].map(str::to_owned).to_vec(), ..ExecSpec::default() }
}

/// Starts a container that waits.
pub(crate) async fn waiting(lab: &Lab, runtime: &Runtime, id: &str) {
    let spec =
        ContainerSpec { env: vec!["OF=container".to_owned()], ..lab.spec(id, "echo up; while :; do sleep 1; done") };
    runtime.create(&spec).await.unwrap();
    runtime.start(id).await.unwrap();
    until_output(runtime, id, "up").await;
}

/// Reads a command's output and errors to their ends.
pub(crate) async fn outcome(mut exec: Exec) -> (i32, String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    within(exec.stdout.read_to_string(&mut out)).await.unwrap();
    if let Some(stderr) = &mut exec.stderr {
        within(stderr.read_to_string(&mut err)).await.unwrap();
    }
    (within(exec.exit()).await.code, out, err)
}

fn a_further_command_runs_inside(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        waiting(lab, &runtime, "host").await;
        let script = "echo $OF $MORE; cat /proc/1/comm /etc/hostname; id; echo oops >&2; cat; exit 7";
        let spec = ExecSpec { env: vec!["MORE=exec".to_owned()], cwd: "/tmp".to_owned(), ..shell(script) };
        let mut exec = runtime.exec("host", &spec, None).await.unwrap();
        exec.stdin.write_all(b"typed\n").await.unwrap();
        drop(std::mem::replace(&mut exec.stdin, runtime.exec("host", &shell("true"), None).await.unwrap().stdin));
        let (code, out, err) = outcome(exec).await;
        assert_eq!((code, err.as_str()), (7, "oops\n"));
        assert!(out.starts_with("container exec\nsh\nlab\nuid=0(root)") && out.ends_with("typed\n"), "{out}");
        let status = runtime.exec("host", &shell("cat /proc/self/status"), None).await.unwrap();
        let (_, status, _) = outcome(status).await;
        for expected in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t00000000a00425fb"] {
            assert!(status.contains(expected), "{expected} in {status}");
        }
        let spec = ExecSpec { user: "web:logs".to_owned(), ..shell("id; kill -9 $$") };
        let (code, out, _) = outcome(runtime.exec("host", &spec, None).await.unwrap()).await;
        assert_eq!((code, out.starts_with("uid=1234(web) gid=1300(logs)")), (137, true), "{out}");
        runtime.remove("host").await.unwrap();
    });
}

fn a_further_command_that_cannot_run_is_named(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        waiting(lab, &runtime, "host").await;
        for (command, code, message) in
            [("foo", 127, "not found in $PATH"), ("not-a-program", 126, "exec format error")]
        {
            let spec = ExecSpec { args: vec![command.to_owned()], ..ExecSpec::default() };
            let error = runtime.exec("host", &spec, None).await.unwrap_err();
            assert_eq!((error.exit_code(), error.to_string().contains(message)), (code, true), "{error}");
        }
        let spec = ExecSpec { user: "nobody-here".to_owned(), ..shell("true") };
        assert!(runtime.exec("host", &spec, None).await.unwrap_err().to_string().contains("unable to find user"));
        runtime.stop("host", libc::SIGKILL, Duration::from_secs(50)).await.unwrap();
        assert!(matches!(runtime.exec("host", &shell("true"), None).await, Err(StartError::NotRunning(_))));
        runtime.remove("host").await.unwrap();
        assert!(matches!(runtime.exec("host", &shell("true"), None).await, Err(StartError::Missing(_))));
    });
}

fn a_further_command_gets_a_terminal(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        waiting(lab, &runtime, "host").await;
        let script = "readlink /proc/self/fd/0; trap 'echo resized' WINCH; while ! read line; do :; done; echo got $line; exit 3";
        let size = Some(WindowSize { rows: 10, columns: 20 });
        let mut exec = runtime.exec("host", &ExecSpec { tty: true, ..shell(script) }, size).await.unwrap();
        assert!(exec.stderr.is_none());
        exec.resize(WindowSize { rows: 30, columns: 40 }).unwrap();
        exec.stdin.write_all(b"hello\n").await.unwrap();
        let mut text = String::new();
        within(exec.stdout.read_to_string(&mut text)).await.unwrap();
        assert!(text.contains("/dev/pts/") && text.contains("got hello\r\n"), "{text}");
        assert_eq!(within(exec.exit()).await.code, 3);
        runtime.remove("host").await.unwrap();
    });
}

fn a_further_command_ends_with_its_container(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        waiting(lab, &runtime, "host").await;
        let mut exec = runtime.exec("host", &shell("sleep 1000"), None).await.unwrap();
        let exit = runtime.stop("host", libc::SIGKILL, Duration::from_secs(50)).await.unwrap();
        assert_eq!(exit.signal, Some(9));
        assert_eq!(within(exec.exit()).await.signal, Some(9));
        runtime.remove("host").await.unwrap();
    });
}

fn many_commands_leave_nothing_behind(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        waiting(lab, &runtime, "host").await;
        // Mounted where only the shim sees it.
        let shim = processes_with(lab.state_dir().to_str().unwrap())[0];
        let state = lab.state_dir().join("containers/host/runtime/host");
        let sockets = format!("/proc/{shim}/root{}", state.display());
        let files = || std::fs::read_dir(&sockets).unwrap().count();
        let before = files();
        let mut execs = tokio::task::JoinSet::new();
        for number in 0..20 {
            let runtime = runtime.clone();
            execs.spawn(async move {
                let exec = runtime.exec("host", &shell(&format!("echo {number}; exit {number}")), None).await.unwrap();
                let (code, out, _) = outcome(exec).await;
                assert_eq!((code, out), (number, format!("{number}\n")));
            });
        }
        execs.join_all().await;
        assert_eq!(files(), before);
        runtime.remove("host").await.unwrap();
    });
}

fn sleepers(processes: &[ContainerProcess]) -> usize {
    processes.iter().filter(|process| process.command == "sleep 1000").count()
}

fn usage_and_processes_are_told(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let limits = Limits { memory_bytes: Some(64 << 20), pids_max: Some(30), ..Limits::default() };
        let script = "x=0; while [ $x -lt 200000 ]; do x=$((x + 1)); done; sleep 1000 & echo up; sleep 1000; true";
        let spec = ContainerSpec { limits, ..lab.spec("busy", script) };
        let pid = runtime.create(&spec).await.unwrap().pid;
        runtime.start("busy").await.unwrap();
        until_output(&runtime, "busy", "up").await;
        within(async {
            // A child is there before it has become what it will run.
            while sleepers(&runtime.processes("busy").await.unwrap()) < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let stats = runtime.stats("busy").await.unwrap();
        assert!(stats.cpu_ns > 10_000_000 && stats.cpu_ns < 60_000_000_000, "{stats:?}");
        assert_eq!((stats.memory_limit_bytes, stats.pids_limit), (Some(64 << 20), Some(30)));
        assert!(
            stats.memory_bytes > 0 && stats.memory_peak_bytes >= stats.memory_bytes && stats.pids == 3,
            "{stats:?}"
        );
        let processes = runtime.processes("busy").await.unwrap();
        assert_eq!(processes.len(), 3);
        assert_eq!(sleepers(&processes), 2);
        let first = processes.iter().find(|process| process.pid == pid).unwrap();
        assert!(first.command.starts_with("sh -c") && first.cpu_ms > 0, "{first:?}");
        runtime.remove("busy").await.unwrap();
    });
}

fn a_log_is_followed_to_the_end(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let log = LogLimits { file_bytes_max: 64 * 1024, files_max: 10 };
        let script = "x=0; while [ $x -lt 3000 ]; do echo line $x; x=$((x + 1)); done; exit 4";
        runtime.create(&ContainerSpec { log, ..lab.spec("log", script) }).await.unwrap();
        let query = LogQuery { follow: true, ..LogQuery::default() };
        let mut follower = runtime.logs("log", query).await.unwrap();
        runtime.start("log").await.unwrap();
        let mut lines = Vec::new();
        while let Some(batch) = within(follower.next()).await {
            lines.extend(batch.unwrap());
        }
        assert_eq!(lines.len(), 3000);
        assert!(lines.iter().enumerate().all(|(number, line)| line.log == format!("line {number}\n")));
        let query = LogQuery { since: Some(lines[2990].time.clone()), ..LogQuery::default() };
        let first = runtime.logs("log", query).await.unwrap().next().await.unwrap().unwrap();
        assert!(first[0].time >= lines[2990].time && first.len() <= 3000);
        assert_eq!(runtime.log("log", 3).await.unwrap()[0].log, "line 2997\n");
        runtime.remove("log").await.unwrap();
    });
}
