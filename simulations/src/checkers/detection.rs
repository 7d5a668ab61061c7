//! A node that is gone is noticed by all others, and its tasks run elsewhere.

use crate::world::World;

/// Returns who still counts `gone` as up.
pub(crate) fn unnoticed(world: &World, gone: usize) -> Vec<usize> {
    let id = world.nodes[gone].id;
    world.up().filter(|(_, core)| core.membership().is_up(&id)).map(|(index, _)| index).collect()
}
