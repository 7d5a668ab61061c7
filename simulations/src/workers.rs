//! Workers: runs many scripts on all processors, each world in one thread, and catches panics of the core.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::report::Report;
use crate::run::run;
use crate::script::Script;

/// Runs one script; a panic of the core becomes its outcome.
pub fn run_one(script: &Script) -> Report {
    let began = Instant::now();
    let caught = panic::catch_unwind(panic::AssertUnwindSafe(|| run(script)));
    let mut report = caught.unwrap_or_else(|cause| {
        let text =
            cause.downcast_ref::<String>().cloned().or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Report::crashed(&script.options, text.unwrap_or_default())
    });
    report.wall = began.elapsed();
    report
}

/// Runs the scripts on all processors and tells `before` of each when it begins and `after` when it has ended.
/// Results come in the order of the scripts. With `until_failure`, nothing more begins after one that did not come
/// right.
pub fn run_all(
    scripts: &[Script],
    until_failure: bool,
    before: impl Fn(&Script) + Sync,
    after: impl Fn(&Report) + Sync,
) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(scripts.len().max(1));
    let work = || {
        let mut done = Vec::new();
        while let Some((place, script)) = take(&next, scripts) {
            before(script);
            let report = run_one(script);
            after(&report);
            if until_failure && report.outcome != crate::report::Outcome::Right {
                next.store(scripts.len(), Ordering::Relaxed);
            }
            done.push((place, report));
        }
        done
    };
    let mut reports: Vec<(usize, Report)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("workers catch panics")).collect()
    });
    reports.sort_by_key(|(place, _)| *place);
    reports.into_iter().map(|(_, report)| report).collect()
}

fn take<'a>(next: &AtomicUsize, scripts: &'a [Script]) -> Option<(usize, &'a Script)> {
    let place = next.fetch_add(1, Ordering::Relaxed);
    Some((place, scripts.get(place)?))
}
