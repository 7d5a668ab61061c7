//! Promise 4: after heal one task runs in each slot that has a node, there, of its service's present revision; in a slot
//! that no node can take at most one runs on, and makes others wait there; no others run.

use std::collections::{BTreeMap, BTreeSet};

use shoal_cluster::intent::service::Mode;
use shoal_cluster::{Cluster, NodeId, ServiceId};

use crate::world::World;

/// A slot: the node that should run it, the revision, and how many tasks run in it.
type Slot = (Option<NodeId>, u64, u32);

/// Compares the containers that really run with what the first node that is up declares and plans.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let Some((_, core)) = world.up().next() else { return Err("no node is up".to_owned()) };
    let mut wanted = wanted(core);
    let mut crowded = BTreeSet::new();
    for (index, node) in world.nodes.iter().enumerate() {
        for order in node.containers.running() {
            let what = format!("{}.{} revision {}", order.service_name, order.slot, order.revision);
            let Some((at, revision, count)) = wanted.get_mut(&(order.service, order.slot)) else {
                return Err(format!("node {index} runs {what}, which nobody wants"));
            };
            if at.is_some_and(|at| at != node.id || *revision != order.revision) {
                return Err(format!("node {index} runs {what}, which nobody wants there"));
            }
            *count += 1;
            if at.is_none() {
                crowded.insert(node.id);
            }
        }
    }
    let wrong = |(at, _, count): &Slot| match at {
        // Where a task runs on whose slot no node has, one that the plan puts there may have to wait.
        Some(at) => *count != 1 && !(*count == 0 && crowded.contains(at)),
        None => *count > 1,
    };
    match wanted.iter().find(|(_, slot)| wrong(slot)) {
        Some(((service, slot), (_, _, count))) => Err(format!("{count} tasks run in slot {slot} of service {service}")),
        None => Ok(()),
    }
}

fn wanted(core: &Cluster) -> BTreeMap<(ServiceId, u32), Slot> {
    let assignments = &core.plan().assignments;
    let mut wanted = BTreeMap::new();
    for service in core.intent().services() {
        match service.spec.mode {
            Mode::Replicated => {
                for slot in 1..=service.spec.replicas {
                    let at = assignments.get(&(service.id, slot)).copied();
                    wanted.insert((service.id, slot), (at, service.revision, 0));
                }
            }
            Mode::Global => wanted.extend(
                assignments.slots(&service.id).map(|(slot, at)| ((service.id, slot), (Some(at), service.revision, 0))),
            ),
        }
    }
    wanted
}
