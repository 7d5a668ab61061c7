//! Promise 4: after heal one task runs in each slot that has a node, there, of the revision that its service is to run; in
//! a slot that no node can take at most one runs on, and makes others wait there; no others run. Where what a slot should
//! run does not run for long, older ones may run on, on other nodes. While a rollout is paused slots run what they ran,
//! and no more of them are without a task than may have been under way.

use std::collections::{BTreeMap, BTreeSet};

use shoal_cluster::intent::service::{Mode, RestartCondition, Service};
use shoal_cluster::intent::update::{UpdateOrder, Verdict};
use shoal_cluster::plan::rollout::Goal;
use shoal_cluster::{Cluster, NodeId, ServiceId, TaskOrder};

use crate::workload;
use crate::world::World;

/// What is wanted in one slot, and found.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The node that should run it.
    at: Option<NodeId>,
    /// What it should run; anything while its rollout is paused.
    revision: Option<u64>,
    /// Whether it may be without a task: what it should run does not run for long, or has ended for good.
    flawed: bool,
    /// Whether what its node tries to run may never run, so that what ran before on other nodes runs on.
    left: bool,
    /// Whether its task may end for good, and whether one has ended that may have.
    gives_up: bool,
    over: bool,
    /// Whether an old task runs on beside a new one.
    beside: bool,
    /// How many tasks run in it.
    count: u32,
}

/// Compares the containers that really run with what the first node that is up declares and plans.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let Some((_, core)) = world.up().next() else { return Err("no node is up".to_owned()) };
    let mut wanted = wanted(core);
    for (key, slot) in wanted.iter_mut().filter(|(_, slot)| slot.gives_up) {
        slot.over = world.watch.may_be_over(*key, slot.revision);
        slot.flawed |= slot.over;
    }
    let mut crowded = BTreeSet::new();
    for (index, node) in world.nodes.iter().enumerate() {
        for order in node.containers.running() {
            let what = format!("{}.{} revision {}", order.service_name, order.slot, order.revision);
            let Some(slot) = wanted.get_mut(&(order.service, order.slot)) else {
                return Err(format!("node {index} runs {what}, which nobody wants"));
            };
            let wrong = slot.revision.is_some_and(|revision| revision != order.revision);
            // Make before break: what ran on another node, or before, ends once another has run for long enough on the slot's
            // node, which may never be.
            let old = slot.revision != Some(order.revision);
            let left = ((slot.left && old) || slot.over) && slot.at.is_some_and(|at| at != node.id);
            let beside = slot.over && slot.beside;
            if !left && !beside && slot.at.is_some_and(|at| at != node.id || wrong) {
                let found = told(core, slot.at, order);
                return Err(format!(
                    "node {index} runs {what}, which nobody wants there; its slot's node tells {found}"
                ));
            }
            // Nodes that it left one after the other may all keep theirs, which the slot is not empty for.
            slot.count += u32::from(!left || slot.count == 0);
            if slot.at.is_none() {
                crowded.insert(node.id);
            }
        }
    }
    // Where a task runs on whose slot no node has, one that the plan puts there may have to wait.
    let excused = |slot: &Slot| slot.at.is_some_and(|at| crowded.contains(&at)) || slot.flawed;
    let wrong = |slot: &Slot| match (slot.at, slot.revision) {
        (Some(_), Some(_)) => slot.count != 1 && !(slot.count == 0 && excused(slot)),
        // An old task, and a new one that starts first and fails.
        (Some(_), None) => slot.count > 2,
        (None, _) => slot.count > 1,
    };
    if let Some(((service, slot), found)) = wanted.iter().find(|(_, slot)| wrong(slot)) {
        return Err(format!("{} tasks run in slot {slot} of service {service}", found.count));
    }
    for service in core.intent().services() {
        let slots = wanted.iter().filter(|((id, _), slot)| *id == service.id && slot.at.is_some());
        let empty = slots.filter(|(_, slot)| slot.revision.is_none() && slot.count == 0 && !excused(slot)).count();
        if empty > empty_max(core, service) {
            return Err(format!("{empty} slots of {} are empty while its rollout is paused", service.spec.name));
        }
    }
    Ok(())
}

/// Says what the node that has a slot reports of its tasks, for whoever looks for the reason.
fn told(core: &Cluster, at: Option<NodeId>, order: &TaskOrder) -> String {
    let tasks = at.and_then(|at| core.reports().of(&at)).map(|report| report.tasks.values());
    let ours = tasks.into_iter().flatten().filter(|task| (task.service, task.slot) == (order.service, order.slot));
    let shown: Vec<_> = ours.map(|task| (task.revision, task.state, task.over, task.stable)).collect();
    format!("{shown:?}")
}

/// Tells whether a task may run on where its slot no longer is, because what its slot's node tries to run may never run.
pub(super) fn is_left(core: &Cluster, node: NodeId, order: &TaskOrder) -> bool {
    let slot = wanted(core).remove(&(order.service, order.slot));
    slot.is_some_and(|slot| slot.left && slot.revision != Some(order.revision) && slot.at.is_some_and(|at| at != node))
}

/// Returns how many slots may be empty while a rollout is paused: as many as may be under way, and as may have failed.
fn empty_max(core: &Cluster, service: &Service) -> usize {
    let back = core.intent().verdict(service) == Verdict::RollbackPaused;
    let backward = service.rollout.is_some_and(|rollout| rollout.backward);
    let there = if backward { &service.spec.rollback } else { &service.spec.update };
    let configs = if back { vec![there, &service.spec.rollback] } else { vec![there] };
    let slots = core.plan().assignments.slots(&service.id).count() as u64;
    let most = configs.iter().map(|config| match config.parallelism {
        0 => slots,
        parallelism => u64::from(parallelism) + slots * u64::from(config.failure_ratio_max_ppm) / 1_000_000,
    });
    most.sum::<u64>() as usize
}

fn wanted(core: &Cluster) -> BTreeMap<(ServiceId, u32), Slot> {
    let assignments = &core.plan().assignments;
    let mut wanted = BTreeMap::new();
    for service in core.intent().services() {
        let verdict = core.intent().verdict(service);
        let paused = matches!(verdict, Verdict::Paused | Verdict::RollbackPaused);
        let (revision, task) = service.effective(verdict);
        // Start-first an old task runs on beside a new one that never runs for long enough.
        let goal = Goal::of(service, verdict);
        let beside = workload::is_flawed(core, task) && goal.config.order == UpdateOrder::StartFirst;
        // While it is paused a slot may run, or try to run, what came before, which may be no better.
        let was_flawed = service.history.iter().any(|kept| workload::is_flawed(core, &kept.spec.task));
        let slot = Slot {
            at: None,
            revision: Some(revision).filter(|_| !paused && !beside),
            flawed: if paused { was_flawed } else { workload::is_flawed(core, task) },
            left: workload::is_flawed(core, task) || (paused && was_flawed),
            over: false,
            beside: goal.config.order == UpdateOrder::StartFirst,
            gives_up: task.restart.condition != RestartCondition::Any || task.restart.attempts_max.is_some() || paused,
            count: 0,
        };
        match service.spec.mode {
            Mode::Replicated => {
                for number in 1..=service.spec.replicas {
                    let at = assignments.get(&(service.id, number)).copied();
                    wanted.insert((service.id, number), Slot { at, ..slot });
                }
            }
            Mode::Global | Mode::ReplicatedJob { .. } | Mode::GlobalJob => wanted.extend(
                assignments
                    .slots(&service.id)
                    .map(|(number, at)| ((service.id, number), Slot { at: Some(at), ..slot })),
            ),
        }
    }
    wanted
}
