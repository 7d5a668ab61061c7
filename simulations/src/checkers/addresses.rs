//! Promise 6: no two running tasks share an address.

use std::collections::BTreeMap;

use crate::world::World;

/// Looks for an address that two containers have.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let mut owners = BTreeMap::new();
    for (index, node) in world.nodes.iter().enumerate() {
        for order in node.containers.running() {
            for address in order.addresses.iter() {
                if let Some(other) = owners.insert(address, index) {
                    return Err(format!("nodes {other} and {index} both run a task with {address}"));
                }
            }
        }
    }
    Ok(())
}
