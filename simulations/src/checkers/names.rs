//! Promise 5: a name answers with the addresses of the tasks that run, and no others.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::World;

/// Compares each node's names with the containers that really run.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let mut running: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
    for order in world.nodes.iter().flat_map(|node| node.containers.running()) {
        running.entry(order.service_name.folded().to_owned()).or_default().insert(order.addresses);
    }
    for (index, node) in world.nodes.iter_mut().enumerate() {
        let Some(core) = node.core.as_mut() else { continue };
        for (name, answers) in &core.views().names.services {
            let answers: BTreeSet<_> = answers.iter().copied().collect();
            let truth = running.get(name).cloned().unwrap_or_default();
            if answers != truth {
                return Err(format!("node {index} answers {name} with {answers:?}, but {truth:?} run"));
            }
        }
    }
    Ok(())
}
