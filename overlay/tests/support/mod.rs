//! The lab: network namespaces joined by a cable, nodes with certificates, and tasks that are `sleep` processes.
//!
//! Everything made here ends with its value: a namespace with its thread, a task with its process.

pub(crate) mod host;
pub(crate) mod identity;
pub(crate) mod task;

use std::time::{Duration, Instant};

/// How long a predicate may take to come true on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Tells whether the test can run; without root it says why not, and in CI that is a failure.
pub(crate) fn privileged() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "namespace tests need root: run them as root in CI");
    println!("skipped: making network namespaces needs root");
    false
}

/// Waits until `predicate` holds; says what was awaited if it never does.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut predicate: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !predicate() {
        assert!(begin.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    begin.elapsed()
}

/// Runs an asynchronous call of the overlay from a test.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
