//! Promise 8: tombstones that all know and that are older than the horizon are forgotten by all.

use crate::world::World;

/// Returns the nodes that still keep tombstones.
pub(crate) fn kept(world: &World) -> Vec<usize> {
    world.up().filter(|(_, core)| core.intent().grave_count() > 0).map(|(index, _)| index).collect()
}
