//! One run: safety phase, heal, liveness phase, then one node is lost and comes back.

use std::time::Duration;

use crate::checkers;
use crate::faults::Saboteur;
use crate::options::Options;
use crate::report::{Outcome, Report};
use crate::workload::Operators;
use crate::world::World;

/// How often the liveness phase looks whether all is right.
const LOOK: Duration = Duration::from_millis(250);
/// How long everything must stay right before it counts.
const STEADY: Duration = Duration::from_secs(3);
/// How soon all others must know of a lost node.
const DETECTION_MAX: Duration = Duration::from_secs(12);
/// Steps of the safety phase in one simulated second.
const STEPS: u64 = 4;

/// Runs the world of these options to its end.
pub fn run(options: Options) -> Report {
    let mut world = World::new(options);
    let mut report = Report::new(&world.options);
    safety(&mut world);
    world.heal();
    report.outcome = liveness(&mut world, &mut report);
    report.close(&world);
    report
}

fn safety(world: &mut World) {
    let mut operators = Operators::new(world.options.stream("operators"));
    let mut saboteur = Saboteur::new(world.options.stream("faults"));
    let step = Duration::from_secs(1) / STEPS as u32;
    let steps = world.options.safety.as_secs() * STEPS;
    for number in 0..steps {
        world.run_until(world.at_us + step.as_micros() as u64);
        operators.step(world);
        if number % STEPS == 0 {
            saboteur.step(world);
        }
    }
}

fn liveness(world: &mut World, report: &mut Report) -> Outcome {
    match settle(world) {
        Ok(took) => report.converged = Some(took),
        Err(outcome) => return outcome,
    }
    if world.nodes.len() < 3 {
        return Outcome::Right;
    }
    let gone = world.options.stream("victim").below(world.nodes.len() as u64) as usize;
    match lose(world, gone) {
        Ok((detected, replaced)) => (report.detected, report.replaced) = (Some(detected), Some(replaced)),
        Err(outcome) => return outcome,
    }
    world.heal();
    match settle(world) {
        Ok(took) => report.rejoined = Some(took),
        Err(outcome) => return outcome,
    }
    Outcome::Right
}

/// Waits until everything is right and stays so; says how long that took.
fn settle(world: &mut World) -> Result<Duration, Outcome> {
    let began = world.at_us;
    let mut right_since = None;
    loop {
        let violations = checkers::violations(world);
        if violations.is_empty() {
            let since = *right_since.get_or_insert(world.at_us);
            if world.at_us - since >= STEADY.as_micros() as u64 {
                return Ok(Duration::from_micros(since - began));
            }
        } else {
            right_since = None;
        }
        if !world.ledger.violations.is_empty() {
            return Err(Outcome::Wrong(violations));
        }
        if world.at_us - began > world.options.liveness_max.as_micros() as u64 {
            return Err(Outcome::NoProgress(violations));
        }
        world.run_until(world.at_us + LOOK.as_micros() as u64);
    }
}

/// Pulls one node out; says how soon all others knew, and how soon all was right without it.
fn lose(world: &mut World, gone: usize) -> Result<(Duration, Duration), Outcome> {
    let began = world.at_us;
    world.unplug(gone);
    while !checkers::unnoticed(world, gone).is_empty() {
        if world.at_us - began > DETECTION_MAX.as_micros() as u64 {
            let blind = checkers::unnoticed(world, gone);
            return Err(Outcome::NoProgress(vec![format!(
                "detection: nodes {blind:?} did not notice that {gone} is gone"
            )]));
        }
        world.run_until(world.at_us + LOOK.as_micros() as u64);
    }
    let detected = Duration::from_micros(world.at_us - began);
    let replaced = settle(world)?;
    Ok((detected, detected + replaced))
}
