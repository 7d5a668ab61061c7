//! Promise 5: a name answers with the addresses of the tasks that run, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use crate::world::World;

/// Compares each node's names with the containers that really run.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let mut running: BTreeMap<&str, BTreeSet<_>> = BTreeMap::new();
    for order in world.nodes.iter().flat_map(|node| node.containers.running()) {
        running.entry(order.service_name.folded()).or_default().insert(order.addresses);
    }
    for (index, core) in world.up() {
        for (name, answers) in &core.plan().names.services {
            let answers: BTreeSet<_> = answers.iter().copied().collect();
            let truth = running.get(name.as_str()).cloned().unwrap_or_default();
            if answers != truth {
                return Err(format!("node {index} answers {name} with {answers:?}, but {truth:?} run"));
            }
        }
    }
    Ok(())
}

/// Returns, while faults last, the longest time that any node has answered a name with a task that no longer runs, in
/// microseconds. A node that stands still answers nobody.
pub(crate) fn stale(world: &World) -> u64 {
    let running: BTreeSet<Ipv6Addr> =
        world.nodes.iter().flat_map(|node| node.containers.running()).map(|order| order.addresses.v6).collect();
    let awake = world.up().filter(|(index, _)| world.nodes[*index].hears(world.at_us));
    let answers = awake.flat_map(|(_, core)| core.plan().names.services.values().flatten());
    let gone = answers.filter(|answer| !running.contains(&answer.v6));
    gone.map(|answer| world.at_us.saturating_sub(world.watch.ended_us(&answer.v6))).max().unwrap_or(0)
}
