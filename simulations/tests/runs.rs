//! Runs of whole worlds: they come right, they repeat, and a broken shoal is caught.

use shoal_simulations::options::{Fault, Options, Sabotage};
use shoal_simulations::report::{Outcome, Report};
use shoal_simulations::run;
use shoal_simulations::script::Script;

fn options(seed: u64, nodes: usize, faults: &[Fault]) -> Options {
    let mut options = Options::draw(seed, nodes);
    options.faults = faults.iter().copied().collect();
    options
}

fn run(options: Options) -> Report {
    run::run(&Script::drawn(options))
}

#[test]
fn a_small_world_comes_right_under_every_kind_of_fault() {
    let mut options = options(3, 5, Fault::all());
    options.survivor = true;
    let report = run(options);
    assert_eq!(report.outcome, Outcome::Right, "{report}");
    assert!(report.counts.iter().any(|(what, count)| *what == "writes acknowledged" && *count > 10), "{report:?}");
    assert!(report.survived.is_some());
}

#[test]
fn one_seed_gives_one_trace() {
    let every = Fault::all();
    assert_eq!(run(options(11, 4, every)).hash, run(options(11, 4, every)).hash);
    assert_ne!(run(options(11, 4, every)).hash, run(options(12, 4, every)).hash);
}

#[test]
fn a_recorded_run_gives_the_trace_of_the_drawn_one() {
    let script = Script::drawn(options(7, 4, &[Fault::Crash, Fault::Loss, Fault::Hostile, Fault::Drift]));
    let text = toml::to_string(&script).expect("a script is TOML");
    let read: Script = toml::from_str(&text).expect("what was written is read");
    assert_eq!(run::run(&read.spelled_out()).hash, run::run(&script).hash);
}

fn caught(sabotage: Sabotage) -> String {
    let mut options = options(5, 5, &[Fault::Crash]);
    options.sabotage = Some(sabotage);
    options.safety_s = 60;
    let report = run(options);
    assert_ne!(report.outcome, Outcome::Right, "{sabotage:?} went unnoticed");
    report.to_string()
}

#[test]
fn a_core_that_drops_deltas_is_caught() {
    assert!(caught(Sabotage::DropDeltas).contains("agreement"));
}

#[test]
fn a_disk_that_forgets_is_caught() {
    assert!(caught(Sabotage::LoseRecords).contains("not on its disk"));
}

#[test]
fn a_node_that_keeps_tasks_is_caught() {
    assert!(caught(Sabotage::KeepTasks).contains("nobody wants"));
}

#[test]
fn a_shoal_without_timers_is_caught() {
    caught(Sabotage::NoTimeouts);
}
