//! The same containers made by `runc`, through the narrow edge that has a second driver.

use std::path::{Path, PathBuf};
use std::time::Duration;

use shoal_runtime::container::{ContainerSpec, Limits, Privileges, Runtime, ShimCommand};

use super::Case;
use super::exec::{outcome, shell};
use super::lab::{Lab, output, until_output, within};

pub(crate) const CASES: &[Case] = &[("runc_is_a_second_driver", runc_is_a_second_driver)];

fn runc() -> Option<PathBuf> {
    ["/usr/bin/runc", "/usr/sbin/runc"].iter().map(Path::new).find(|path| path.exists()).map(Path::to_path_buf)
}

fn runc_is_a_second_driver(lab: &Lab) {
    let Some(runtime) = runc() else {
        println!("  skipped: there is no runc here (apt-get install runc)");
        assert!(std::env::var_os("CI").is_none(), "in CI it must be there");
        return;
    };
    lab.block_on(async {
        let exe = std::env::current_exe().unwrap();
        let runtime = Runtime::open(lab.state_dir(), ShimCommand { exe, runtime: Some(runtime) }).await.unwrap();
        life(lab, &runtime).await;
        failures(lab, &runtime).await;
        terminal(lab, &runtime).await;
    });
}

async fn life(lab: &Lab, runtime: &Runtime) {
    let limits = Limits { memory_bytes: Some(64 << 20), pids_max: Some(50), ..Limits::default() };
    let privileges = Privileges { cap_drop: vec!["ALL".to_owned()], ..Privileges::default() };
    let script = "cat /proc/self/status; cat /etc/hostname; trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done";
    let spec = ContainerSpec { limits, privileges, ..lab.spec("other", script) };
    let created = runtime.create(&spec).await.unwrap();
    assert!(created.pid > 1);
    runtime.start("other").await.unwrap();
    until_output(runtime, "other", "up").await;
    let text = output(runtime, "other").await;
    for expected in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "\nlab\n"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let (code, out, _) = outcome(runtime.exec("other", &shell("cat /etc/hostname; exit 8"), None).await.unwrap()).await;
    assert_eq!((code, out.as_str()), (8, "lab\n"));
    let stats = runtime.stats("other").await.unwrap();
    assert_eq!((stats.memory_limit_bytes, stats.pids_limit), (Some(64 << 20), Some(50)));
    let exit = runtime.stop("other", libc::SIGTERM, Duration::from_secs(50)).await.unwrap();
    assert_eq!((exit.code, exit.signal, exit.error), (9, None, None));
    runtime.remove("other").await.unwrap();
}

async fn failures(lab: &Lab, runtime: &Runtime) {
    let spec = ContainerSpec { args: vec!["no-such-command".to_owned()], ..lab.spec("wrong", "") };
    let failure = match runtime.create(&spec).await {
        Ok(_) => runtime.start("wrong").await.unwrap_err(),
        Err(failure) => failure,
    };
    assert_eq!(failure.exit_code(), 127, "{failure}");
    runtime.remove("wrong").await.unwrap();
    let failure = runtime.create(&ContainerSpec { init: true, ..lab.spec("wrong", "true") }).await.unwrap_err();
    assert!(failure.to_string().contains("has no --init"), "{failure}");
}

async fn terminal(lab: &Lab, runtime: &Runtime) {
    let spec = ContainerSpec { tty: true, ..lab.spec("tty", "[ -t 1 ] && echo terminal; exit 6") };
    runtime.create(&spec).await.unwrap();
    runtime.start("tty").await.unwrap();
    assert_eq!(within(runtime.wait("tty")).await.unwrap().code, 6);
    assert_eq!(output(runtime, "tty").await, "terminal\r\n");
    runtime.remove("tty").await.unwrap();
}
