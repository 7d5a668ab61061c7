//! One run: safety phase, heal, liveness phase, then one node is lost and comes back, then, in some runs, all but one.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::node::{Availability, NodeSpec};
use shoal_cluster::intent::service::{ImageRef, ServiceSpec, TaskSpec};
use shoal_cluster::plan::forecast::Change;
use shoal_cluster::{Command, Receipt};

use crate::checkers::{self, forecast};
use crate::report::{Moved, Outcome, Report};
use crate::script::Script;
use crate::workload::ZONE;
use crate::world::{World, kept_out};

/// How often the liveness phase looks whether all is right.
const LOOK: Duration = Duration::from_millis(250);
/// How long everything must stay right before it counts.
const STEADY: Duration = Duration::from_secs(3);
/// How soon all others must know of a lost node.
const DETECTION_MAX: Duration = Duration::from_secs(12);
/// How long nodes have to find each other before the safety phase begins.
const GATHER: Duration = Duration::from_secs(2);
/// How often the age of stale answers is sampled while faults last.
const SAMPLE: Duration = Duration::from_secs(1);
/// How long tombstones may stay beyond twice the horizon, and for each node: all pairs must have compared once.
const BURIAL_S: u64 = 60;
const BURIAL_EACH_S: u64 = 15;
/// How often is looked whether they are gone.
const BURIAL_LOOK: Duration = Duration::from_secs(1);
/// The service that is created where one node is left.
const LAST: &str = "last";

/// Runs the world of this script to its end.
pub fn run(script: &Script) -> Report {
    let kept_out = kept_out(script.bare_steps(), script.options.nodes);
    let mut world = World::new(script.options.clone(), kept_out);
    let mut report = Report::new(&script.options);
    safety(&mut world, &mut report, script);
    world.heal();
    if let Err(outcome) = liveness(&mut world, &mut report) {
        report.outcome = outcome;
    }
    report.close(&world);
    report
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

fn safety(world: &mut World, report: &mut Report, script: &Script) {
    world.run_until(micros(GATHER));
    let end = world.at_us + script.options.safety_s * 1_000_000;
    let mut sample_at = world.at_us;
    for timed in &script.steps {
        let at_us = (micros(GATHER) + timed.at_ms * 1_000).min(end);
        sample(world, report, &mut sample_at, at_us);
        world.run_until(at_us);
        world.step(&timed.step);
    }
    sample(world, report, &mut sample_at, end);
    world.run_until(end);
}

/// Looks at the names that nodes answer, now and then until `end`.
fn sample(world: &mut World, report: &mut Report, at: &mut u64, end: u64) {
    while *at < end {
        world.run_until((*at).max(world.at_us));
        report.stale_us = report.stale_us.max(checkers::stale(world));
        *at += micros(SAMPLE * world.options.pace);
    }
}

fn liveness(world: &mut World, report: &mut Report) -> Result<(), Outcome> {
    let quiet = settle(world)?;
    (report.converged, report.idle_bytes) = (Some(quiet.took), quiet.bytes_per_node_second);
    if world.options.loss && world.nodes.len() >= 3 {
        lose(world, report)?;
        world.heal();
        report.rejoined = Some(settle(world)?.took);
    }
    if world.options.drain {
        drain(world)?;
    }
    if world.options.survivor {
        survive(world, report)?;
        world.heal();
        settle(world)?;
    }
    bury(world)?;
    if world.options.join { join(world) } else { Ok(()) }
}

/// The end of a wait: how long it took, and what the nodes said to each other when all was right.
struct Quiet {
    took: Duration,
    bytes_per_node_second: f64,
}

/// Waits until everything is right and stays so.
fn settle(world: &mut World) -> Result<Quiet, Outcome> {
    let (look, steady) = (micros(LOOK * world.options.pace), micros(STEADY * world.options.pace));
    let (began, sent) = (world.at_us, world.network.sent.1);
    let mut right_since: Option<(u64, u64)> = None;
    loop {
        let violations = checkers::violations(world);
        if !world.ledger.violations.is_empty() {
            return Err(Outcome::Wrong(violations));
        }
        if violations.is_empty() {
            let (since, before) = *right_since.get_or_insert((world.at_us, world.network.sent.1));
            if world.at_us - since >= steady {
                let seconds = (world.at_us - since) as f64 / 1e6;
                let nodes = world.up().count().max(1) as f64;
                let bytes_per_node_second = (world.network.sent.1 - before) as f64 / seconds / nodes;
                return Ok(Quiet { took: Duration::from_micros(since - began), bytes_per_node_second });
            }
        } else {
            right_since = None;
        }
        if world.at_us - began > micros(world.options.liveness_max()) {
            let still = if world.network.sent.1 == sent { " (and nobody says anything)" } else { "" };
            let told = violations.into_iter().map(|line| format!("{line}{still}"));
            return Err(Outcome::NoProgress(told.collect()));
        }
        world.run_until(world.at_us + look);
    }
}

/// Pulls one node out: how soon do all others know, and how soon is all right without it?
fn lose(world: &mut World, report: &mut Report) -> Result<(), Outcome> {
    let gone = world.options.stream("victim").below(world.nodes.len() as u64) as usize;
    let needed = world.nodes[gone].containers.running().count() as u64;
    let started = |world: &World| world.counts.get("containers started").copied().unwrap_or(0);
    let (began, before) = (world.at_us, started(world));
    let foreseen = forecast::foresee(world, Change::Fail(world.nodes[gone].id));
    world.unplug(gone);
    let looks = LOOK * world.options.pace;
    while !checkers::unnoticed(world, gone).is_empty() {
        if world.at_us - began > micros(DETECTION_MAX * world.options.pace) {
            let blind = checkers::unnoticed(world, gone);
            let text = format!("detection: nodes {blind:?} did not notice that {gone} is gone");
            return Err(Outcome::NoProgress(vec![text]));
        }
        world.run_until(world.at_us + micros(looks));
    }
    let detected = Duration::from_micros(world.at_us - began);
    let replaced = settle(world)?.took;
    forecast::check(world, foreseen, "the loss of a node").map_err(|what| Outcome::Wrong(vec![what]))?;
    (report.detected, report.replaced) = (Some(detected), Some(detected + replaced));
    report.moved = Some(Moved { started: started(world) - before, needed });
    Ok(())
}

/// Drains a node, which must lead to the plan that was foreseen, and puts it back.
fn drain(world: &mut World) -> Result<(), Outcome> {
    let wrong = |what: String| Outcome::Wrong(vec![what]);
    let node = world.options.stream("drained").below(world.nodes.len() as u64) as usize;
    let (id, at) = (world.nodes[node].id, (node + 1) % world.nodes.len());
    let before = availability(world, at, node);
    let foreseen = forecast::foresee(world, Change::Drain(id));
    set_availability(world, at, node, Availability::Drain).map_err(wrong)?;
    settle(world)?;
    forecast::check(world, foreseen, "draining a node").map_err(wrong)?;
    set_availability(world, at, node, before).map_err(wrong)?;
    settle(world)?;
    Ok(())
}

/// Lets a node join that was foreseen, with the id, the name, the resources and the labels that the forecast gave it: that
/// must lead to the plan that was foreseen.
fn join(world: &mut World) -> Result<(), Outcome> {
    let wrong = |what: String| Outcome::Wrong(vec![what]);
    let labels = BTreeMap::from([(ZONE.to_owned(), "b".to_owned())]);
    let (foreseen, joining) = forecast::foresee_joining(world, labels.clone()).map_err(wrong)?;
    world.admit(&joining);
    settle(world)?;
    let spec = NodeSpec { labels, ..NodeSpec::default() };
    match world.command(0, Command::UpdateNode { node: joining.id, version: 0, spec }) {
        Some(Ok(_)) => {}
        other => return Err(wrong(format!("forecast: labels of a node that joined are answered with {other:?}"))),
    }
    settle(world)?;
    forecast::check(world, Some(foreseen), "a node that joined").map_err(wrong)
}

fn availability(world: &mut World, at: usize, node: usize) -> Availability {
    let id = world.nodes[node].id;
    let wanted = world.core(at).and_then(|core| core.intent().nodes().get(&id).cloned());
    wanted.map(|wanted| wanted.spec.availability).unwrap_or_default()
}

/// Lets an operator at node `at` write the availability of a node.
fn set_availability(world: &mut World, at: usize, node: usize, availability: Availability) -> Result<(), String> {
    let id = world.nodes[node].id;
    let present = world.core(at).and_then(|core| core.intent().nodes().get(&id).cloned());
    let (version, spec) = present.map_or((0, NodeSpec::default()), |present| (present.version, present.spec));
    let spec = NodeSpec { availability, ..spec };
    match world.command(at, Command::UpdateNode { node: id, version, spec }) {
        Some(Ok(_)) => Ok(()),
        other => Err(format!("drained: node {at} answers a write of node {node} with {other:?}")),
    }
}

/// Promise 8: waits until tombstones are forgotten, if this run keeps them for a short time.
fn bury(world: &mut World) -> Result<(), Outcome> {
    let Some(horizon_s) = world.options.horizon_s else { return Ok(()) };
    let patience = Duration::from_secs(2 * horizon_s + BURIAL_S + BURIAL_EACH_S * world.nodes.len() as u64);
    let end = world.at_us + micros(patience * world.options.pace);
    while !checkers::kept(world).is_empty() {
        if world.at_us > end {
            let text = format!("graves: nodes {:?} keep tombstones for ever", checkers::kept(world));
            return Err(Outcome::NoProgress(vec![text]));
        }
        world.run_until(world.at_us + micros(BURIAL_LOOK * world.options.pace));
    }
    settle(world)?;
    Ok(())
}

/// Promise 1: pulls out all nodes but one, which must run everything, accept a new service and answer its name.
fn survive(world: &mut World, report: &mut Report) -> Result<(), Outcome> {
    let last = world.options.stream("survivor").below(world.nodes.len() as u64) as usize;
    let began = world.at_us;
    (0..world.nodes.len()).filter(|node| *node != last).for_each(|node| world.unplug(node));
    if availability(world, last, last) != Availability::Active {
        set_availability(world, last, last, Availability::Active).map_err(|what| Outcome::Wrong(vec![what]))?;
    }
    let image = ImageRef { reference: "whoami:latest".to_owned(), digest: None };
    let spec = ServiceSpec::new(Name::new(LAST).expect("a plain name"), 3, TaskSpec::new(image));
    let id = match world.command(last, Command::CreateService(spec)) {
        Some(Ok(Receipt::Service { id, .. })) => id,
        other => return Err(Outcome::Wrong(vec![format!("survivor: a lone node answers a command with {other:?}")])),
    };
    settle(world)?;
    let answers = world.core(last).and_then(|core| core.plan().names.services.get(LAST).cloned());
    if answers.as_ref().map(Vec::len) != Some(3) {
        return Err(Outcome::Wrong(vec![format!("survivor: a lone node answers {LAST} with {answers:?}")]));
    }
    report.survived = Some(Duration::from_micros(world.at_us - began) - STEADY * world.options.pace);
    match world.command(last, Command::RemoveService(id)) {
        Some(Ok(_)) => Ok(()),
        other => Err(Outcome::Wrong(vec![format!("survivor: a lone node answers a removal with {other:?}")])),
    }
}
