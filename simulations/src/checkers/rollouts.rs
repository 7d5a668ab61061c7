//! Promise 4: a rollout ends, all nodes agree how, and on its way no more slots move at once than its parallelism says.

use std::collections::{BTreeMap, BTreeSet};

use shoal_cluster::id::Leg;
use shoal_cluster::intent::service::Service;
use shoal_cluster::intent::update::{UpdateConfig, UpdateOrder};
use shoal_cluster::plan::rollout::{self, Goal, Standing};
use shoal_cluster::{Cluster, NodeId, ServiceId, TaskOrder};

use crate::containers::{Container, Phase};
use crate::node::Node;
use crate::world::World;

/// How much of a time must have passed by the true clock, in hundredths: clocks of nodes run up to 2 % fast.
const CLOCK_PERCENT: u64 = 97;

/// In a healed world every rollout has ended, alike on all nodes.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let Some((first, core)) = world.up().next() else { return Err("no node is up".to_owned()) };
    for (index, other) in world.up() {
        for service in core.intent().services() {
            let verdicts = [core, other].map(|core| core.intent().verdict(service));
            if verdicts[0] != verdicts[1] {
                let name = &service.spec.name;
                return Err(format!("nodes {first} and {index} hold {verdicts:?} on the rollout of {name}"));
            }
        }
    }
    // Where no node can take any slot there is nothing to move, and nothing to learn.
    let has_slots = |service: &&Service| core.plan().assignments.slots(&service.id).next().is_some();
    let mut rolling = core.intent().rolling().filter(has_slots);
    match rolling.find(|service| !waits_for_room(world, core, service)) {
        Some(service) => Err(format!("the rollout of {} has not ended: {}", service.spec.name, state(core, service))),
        None => Ok(()),
    }
}

/// Says how far a rollout has come.
fn state(core: &Cluster, service: &Service) -> String {
    let verdict = core.intent().verdict(service);
    let goal = Goal::of(service, verdict);
    let standing = Standing::of(service, &goal, core.facts());
    let front = rollout::front(service, &goal, core.facts());
    let open = standing.slots.keys().filter(|slot| !standing.arrived.contains(slot) && !standing.failed.contains(slot));
    let tasks = core.reports().iter().flat_map(|(_, report)| report.tasks.values());
    let tasks = tasks.filter(|task| task.service == service.id && !task.state.is_final());
    let tasks: Vec<_> = tasks.map(|task| (task.slot, task.revision == goal.target.revision, task.state)).collect();
    let (config, open) = (goal.config, open.collect::<Vec<_>>());
    format!("{verdict:?}, front {front:?}, open {open:?}, failed {:?}, {config:?}, tasks {tasks:?}", standing.failed)
}

/// Tells whether a slot of a service may have to wait on its node beside a task on whose slot no node has room.
fn waits_for_room(world: &World, core: &Cluster, service: &Service) -> bool {
    let assignments = &core.plan().assignments;
    let nodes: BTreeSet<NodeId> = assignments.slots(&service.id).map(|(_, node)| node).collect();
    let crowded =
        |node: &&Node| node.containers.running().any(|order| assignments.get(&(order.service, order.slot)).is_none());
    world.nodes.iter().filter(crowded).any(|node| nodes.contains(&node.id))
}

/// The slots that one direction of a rollout has moved.
#[derive(Debug, Default)]
struct Moved {
    target: u64,
    /// How many may be under way: the greatest parallelism of the nodes that moved one; they may know different specs.
    most: usize,
    /// How long a task must run, by the least that any of those nodes knows.
    watch_us: u64,
    /// The slots, each with those that its node knew to have a node when it moved.
    under_way: BTreeMap<u32, BTreeSet<u32>>,
}

/// What is remembered of all rollouts.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    legs: BTreeMap<(ServiceId, Leg), Moved>,
    /// For how long a task of this revision has run in a slot at most; for ever, if one ended by itself.
    longest_us: BTreeMap<(ServiceId, u64, u32), u64>,
}

impl Moves {
    /// A node starts a task: if its slot moves with it, because another runs there, not too many do.
    pub(super) fn starts(&mut self, at_us: u64, nodes: &[Node], node: usize, order: &TaskOrder) -> Result<(), String> {
        let slot = (order.service, order.slot);
        let Some((service, goal)) = goal_at(nodes, node, order) else { return Ok(()) };
        let elder = |container: &Container| {
            container.phase == Phase::Running && (container.order.service, container.order.slot) == slot
        };
        if order.revision == goal.target.revision && nodes[node].containers.iter().any(elder) {
            return self.moved(at_us, nodes, node, (service, &goal), order.slot);
        }
        Ok(())
    }

    /// A node stops a task that runs: if its slot moves by that, not too many do; and start-first another runs there.
    pub(super) fn stops(&mut self, at_us: u64, nodes: &[Node], node: usize, order: &TaskOrder) -> Result<(), String> {
        let Some((service, goal)) = goal_at(nodes, node, order) else { return Ok(()) };
        let Some(core) = &nodes[node].core else { return Ok(()) };
        let block = core.plan().blocks.get(&nodes[node].id);
        let at_home = block.is_some_and(|block| order.addresses.iter().all(|address| block.contains(address)));
        let here = core.plan().assignments.get(&(order.service, order.slot)) == Some(&nodes[node].id);
        if !here || !at_home || order.revision == goal.target.revision {
            return Ok(());
        }
        if goal.config.order == UpdateOrder::StartFirst {
            let monitor_us = goal.config.monitor_ms * 10 * CLOCK_PERCENT;
            let takes_over = |other: &Container| {
                let same = (other.order.service, other.order.slot) == (order.service, order.slot);
                let watched = other.order.revision != goal.target.revision || other.ran_us(at_us) >= monitor_us;
                same && other.order.id != order.id && other.phase == Phase::Running && watched
            };
            let over = self.ended_by_itself((order.service, order.slot), Some(goal.target.revision));
            if !over && !nodes[node].containers.iter().any(takes_over) {
                return Err(format!("stops slot {} of {} before its successor runs", order.slot, order.service_name));
            }
        }
        // Of two that are both of other revisions, as when a start-first rollout was replaced by another, one stays. The slot
        // has not moved by that.
        let stays = |other: &Container| {
            let same = (other.order.service, other.order.slot) == (order.service, order.slot);
            let outdated = other.order.id != order.id && other.order.revision != goal.target.revision;
            same && outdated && other.phase == Phase::Running
        };
        if nodes[node].containers.iter().any(stays) {
            return Ok(());
        }
        self.moved(at_us, nodes, node, (service, &goal), order.slot)
    }

    /// A container has ended after it ran for so long; by itself or not.
    pub(super) fn ended(&mut self, order: &TaskOrder, ran_us: u64, by_itself: bool) {
        let longest = self.longest_us.entry((order.service, order.revision, order.slot)).or_default();
        *longest = if by_itself { u64::MAX } else { ran_us.max(*longest) };
    }

    /// Tells whether a task of this revision, or of any if that is open, ended by itself in a slot.
    pub(super) fn ended_by_itself(&self, (service, slot): (ServiceId, u32), revision: Option<u64>) -> bool {
        let ends = self.longest_us.range((service, 0, 0)..=(service, u64::MAX, u32::MAX));
        let same = |known: u64| revision.is_none_or(|revision| revision == known);
        ends.into_iter().any(|((_, known, there), ran_us)| *there == slot && same(*known) && *ran_us == u64::MAX)
    }

    fn moved(
        &mut self,
        at_us: u64,
        nodes: &[Node],
        node: usize,
        (service, goal): (&Service, &Goal<'_>),
        slot: u32,
    ) -> Result<(), String> {
        let Some(leg) = goal.leg() else { return Ok(()) };
        let parallelism = match goal.config.parallelism {
            0 => usize::MAX,
            parallelism => parallelism as usize,
        };
        let watch_us = (goal.config.monitor_ms + goal.config.delay_ms) * 1_000;
        let moved = self.legs.entry((service.id, leg)).or_insert_with(|| Moved { watch_us, ..Moved::default() });
        moved.target = goal.target.revision;
        moved.most = moved.most.max(parallelism);
        moved.watch_us = moved.watch_us.min(watch_us);
        let (longest_us, target, watch_us) = (&self.longest_us, moved.target, moved.watch_us);
        let arrived = |slot: u32| {
            let ran_us = longest_us.get(&(service.id, target, slot)).copied().unwrap_or_default();
            let here = |container: &&Container| {
                let order = &container.order;
                (order.service, order.revision, order.slot) == (service.id, target, slot)
            };
            let containers = nodes.iter().flat_map(|node| node.containers.iter()).filter(here);
            let longest = containers.map(|container| container.ran_us(at_us)).fold(ran_us, u64::max);
            longest.saturating_mul(100) >= watch_us * CLOCK_PERCENT
        };
        moved.under_way.retain(|slot, _| !arrived(*slot));
        let Some(core) = &nodes[node].core else { return Ok(()) };
        // One that began to move when it might goes on, whatever began since.
        if arrived(slot) || moved.under_way.contains_key(&slot) {
            return Ok(());
        }
        let known: BTreeSet<u32> = core.plan().assignments.slots(&service.id).map(|(slot, _)| slot).collect();
        // A slot holds up those after it, if their nodes knew that it has a node: with those before this one, and this one.
        let before: BTreeSet<u32> =
            moved.under_way.keys().copied().filter(|other| *other < slot && known.contains(other)).collect();
        let after = moved.under_way.range(slot + 1..);
        let after = after.filter(|(_, theirs)| theirs.contains(&slot) && theirs.is_superset(&before)).count();
        let count = 1 + before.len() + after;
        moved.under_way.insert(slot, known);
        if count > moved.most {
            let (name, most) = (&service.spec.name, moved.most);
            return Err(format!("moves slot {slot} of {name}: {count} slots are under way, {most} may be"));
        }
        Ok(())
    }
}

/// Returns the service of a task and its goal, as a node knows them.
fn goal_at<'a>(nodes: &'a [Node], node: usize, order: &TaskOrder) -> Option<(&'a Service, Goal<'a>)> {
    let core = nodes[node].core.as_ref()?;
    let service = core.intent().service(&order.service).filter(|service| service.spec.has_slot(order.slot))?;
    Some((service, Goal::of(service, core.intent().verdict(service))))
}

/// Tells whether two tasks may be in one slot of a node: the older runs, and the newer starts first. It may have been ordered
/// in the very turn in which its node called the rollout off, so that either way's order counts.
pub(super) fn may_stand_beside(node: &Node, elder: &Container, order: &TaskOrder) -> bool {
    let service = goal_at(std::slice::from_ref(node), 0, order).map(|(service, _)| service);
    let starts_first = |config: &UpdateConfig| config.order == UpdateOrder::StartFirst;
    let first =
        service.is_some_and(|service| [&service.spec.update, &service.spec.rollback].into_iter().any(starts_first));
    first && elder.phase == Phase::Running && elder.order.revision != order.revision
}
