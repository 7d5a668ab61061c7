//! Promise 4: after heal exactly R tasks of each service run, one in each slot, of its present revision.

use std::collections::BTreeMap;

use crate::world::World;

/// Compares the containers that really run with what the first node that is up declares.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let Some((_, core)) = world.up().next() else { return Err("no node is up".to_owned()) };
    let mut wanted: BTreeMap<_, u32> = BTreeMap::new();
    for service in core.intent().services() {
        for slot in 1..=service.spec.replicas {
            wanted.insert((service.id, slot, service.revision), 0);
        }
    }
    for (index, node) in world.nodes.iter().enumerate() {
        for order in node.containers.running() {
            let Some(count) = wanted.get_mut(&(order.service, order.slot, order.revision)) else {
                let what = format!("{}.{} revision {}", order.service_name, order.slot, order.revision);
                return Err(format!("node {index} runs {what}, which nobody wants"));
            };
            *count += 1;
        }
    }
    match wanted.iter().find(|(_, count)| **count != 1) {
        Some(((service, slot, _), count)) => Err(format!("{count} tasks run in slot {slot} of service {service}")),
        None => Ok(()),
    }
}
