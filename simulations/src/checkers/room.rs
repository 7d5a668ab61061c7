//! No node runs more than fits: what the tasks that the plan puts there reserve is no more than it has.

use shoal_cluster::intent::node::Availability;

use crate::world::World;

/// Sums up what is reserved on each node by tasks that are to run there. What runs on a paused node stays, whatever it
/// reserves meanwhile.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let Some((_, core)) = world.up().next() else { return Err("no node is up".to_owned()) };
    for (index, node) in world.nodes.iter().enumerate() {
        let wanted = core.intent().nodes().get(&node.id).map(|wanted| wanted.spec.availability);
        let Some(member) = core.membership().members().get(&node.id) else { continue };
        if wanted == Some(Availability::Pause) {
            continue;
        }
        let (mut nano_cpus, mut memory_bytes) = (0_u64, 0_u64);
        for order in node.containers.running() {
            let here = core.plan().assignments.get(&(order.service, order.slot)) == Some(&node.id);
            if let Some(service) = core.intent().service(&order.service).filter(|_| here) {
                nano_cpus += service.spec.reserved.nano_cpus;
                memory_bytes += service.spec.reserved.memory_bytes;
            }
        }
        let (has_cpus, has_bytes) = (member.meta.nano_cpus, member.meta.memory_bytes);
        if nano_cpus > has_cpus || memory_bytes > has_bytes {
            return Err(format!(
                "{nano_cpus} nano-CPUs and {memory_bytes} bytes are reserved on node {index}, \
                 which has {has_cpus} and {has_bytes}"
            ));
        }
    }
    Ok(())
}
