//! Runs of whole worlds: they come right, they repeat, and a broken shoal is caught.

use shoal_simulations::options::{Options, Sabotage};
use shoal_simulations::report::Outcome;
use shoal_simulations::run::run;

fn options(seed: u64, nodes: usize) -> Options {
    Options::draw(seed, nodes)
}

#[test]
fn a_small_world_comes_right_under_every_kind_of_fault() {
    let mut options = options(3, 5);
    options.faults.loss_permille = 50;
    options.faults.partitions = true;
    options.faults.crashes = true;
    options.faults.exits = true;
    let report = run(options);
    assert_eq!(report.outcome, Outcome::Right, "{report}");
    assert!(report.counts.iter().any(|(what, count)| *what == "writes acknowledged" && *count > 10), "{report:?}");
}

#[test]
fn one_seed_gives_one_trace() {
    assert_eq!(run(options(11, 4)).hash, run(options(11, 4)).hash);
    assert_ne!(run(options(11, 4)).hash, run(options(12, 4)).hash);
}

fn caught(sabotage: Sabotage) -> String {
    let mut options = options(5, 5);
    options.faults.crashes = true;
    options.sabotage = Some(sabotage);
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
    caught(Sabotage::LoseRecords);
}

#[test]
fn a_node_that_keeps_tasks_is_caught() {
    assert!(caught(Sabotage::KeepTasks).contains("nobody wants"));
}

#[test]
fn a_shoal_without_timers_is_caught() {
    caught(Sabotage::NoTimeouts);
}
