//! A node that is gone is noticed by all others, and its tasks run elsewhere.

use crate::world::World;

/// Returns who still counts `gone` as up.
pub(crate) fn unnoticed(world: &mut World, gone: usize) -> Vec<usize> {
    let id = world.nodes[gone].id;
    let mut blind = Vec::new();
    for (index, node) in world.nodes.iter_mut().enumerate() {
        let Some(core) = node.core.as_mut() else { continue };
        if core.views().member(&id).is_none_or(|member| member.state.is_up()) {
            blind.push(index);
        }
    }
    blind
}
