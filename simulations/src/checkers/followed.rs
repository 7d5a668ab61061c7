//! Promise 2: a plan that was followed from change to change is the one that is computed from nothing.

use shoal_cluster::plan;

use crate::node::SHOAL;
use crate::world::World;

/// Computes the plan of one node anew, each time of another.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let count = world.up().count().max(1);
    let Some((index, core)) = world.up().nth(world.trace.events() as usize % count) else { return Ok(()) };
    let anew = plan::plan(&SHOAL, core.intent(), core.membership(), core.reports());
    if anew == *core.plan() { Ok(()) } else { Err(format!("the plan of node {index} is not that of its planes")) }
}
