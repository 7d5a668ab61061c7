//! Tasks run only on nodes that meet the constraints of their services. What runs on a paused node stays there.
//!
//! Says again, without the core's code, what the constraints that the workload draws mean.

use shoal_cluster::intent::constraint::Attribute;
use shoal_cluster::intent::node::Availability;

use super::replicas;
use crate::world::World;

/// Compares every container with the constraints of its service and the labels of its node.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let Some((_, core)) = world.up().next() else { return Err("no node is up".to_owned()) };
    for (index, node) in world.nodes.iter().enumerate() {
        let wanted = core.intent().nodes().get(&node.id).map(|wanted| &wanted.spec);
        if wanted.is_some_and(|wanted| wanted.availability == Availability::Pause) {
            continue;
        }
        let label = |name: &String| wanted.and_then(|wanted| wanted.labels.get(name)).map_or("", String::as_str);
        for order in node.containers.running() {
            let Some(service) = core.intent().service(&order.service) else { continue };
            for constraint in &service.spec.placement.constraints {
                let present = match &constraint.attribute {
                    Attribute::NodeLabel(name) => label(name).to_owned(),
                    Attribute::Hostname => node.name().to_owned(),
                    other => return Err(format!("the workload draws no constraint on {other:?}")),
                };
                if (present == constraint.value) != constraint.equal && !replicas::is_left(core, node.id, order) {
                    let what = format!("{}.{}", order.service_name, order.slot);
                    return Err(format!("node {index} runs {what}, which it may not: {constraint:?} is {present:?}"));
                }
            }
        }
    }
    Ok(())
}
