//! A node that is drained runs nothing.

use shoal_cluster::intent::node::Availability;

use super::replicas;
use crate::world::World;

/// Looks for containers on nodes that are drained by what the first node that is up knows.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let Some((_, core)) = world.up().next() else { return Err("no node is up".to_owned()) };
    for (index, node) in world.nodes.iter().enumerate() {
        let wanted = core.intent().nodes().get(&node.id).map(|wanted| wanted.spec.availability);
        if wanted == Some(Availability::Drain)
            && let Some(order) = node.containers.running().find(|order| !replicas::is_left(core, node.id, order))
        {
            return Err(format!("node {index} is drained and runs {}.{}", order.service_name, order.slot));
        }
    }
    Ok(())
}
