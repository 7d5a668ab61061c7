//! Real containers on this host: what the executor relies on, tried as root.
//!
//! This binary is also its own shim (`containers shim …`) and, for the tests of adoption, its own daemon
//! (`containers daemon …`), which is why it has no test harness. Without root it says so and, in CI, fails.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test without the harness that would allow them")]

mod adoption;
mod bad_days;
mod drivers;
mod exec;
mod features;
mod figures;
mod isolation;
mod lab;
mod life;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use lab::Lab;

type Case = (&'static str, fn(&Lab));

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    match first.as_ref().and_then(|first| first.to_str()) {
        Some("shim") => return shoal_runtime::container::shim_main(arguments),
        Some("daemon") => return adoption::daemon(arguments),
        Some("stages") => return adoption::stages(arguments),
        Some("hidden") => return isolation::behind_a_new_sys(),
        Some("unified") => return isolation::with_cgroup_v2(),
        _ => {}
    }
    if !nix::unistd::geteuid().is_root() {
        println!("containers: skipped, they need root");
        return if std::env::var_os("CI").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let cases = [
        life::CASES,
        isolation::CASES,
        features::CASES,
        exec::CASES,
        drivers::CASES,
        adoption::CASES,
        bad_days::CASES,
        figures::CASES,
    ]
    .concat();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let cases: Vec<Case> = cases.into_iter().filter(|(name, _)| wanted(name)).collect();
    let code = run(&cases);
    lab::remove_tools();
    code
}

fn run(cases: &[Case]) -> ExitCode {
    println!("\nrunning {} tests", cases.len());
    let begin = Instant::now();
    let mut failed = 0;
    for (name, case) in cases {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let lab = Lab::new();
            case(&lab);
            lab.assert_nothing_left();
        }));
        failed += usize::from(outcome.is_err());
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let passed = cases.len() - failed;
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; in {:.2?}\n", begin.elapsed());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
