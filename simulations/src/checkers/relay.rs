//! Promise 8, for binaries: what a newer binary wrote is kept and passed on by nodes that cannot read it.

use crate::world::World;

/// Compares how many entries of the future were written with how many each node holds.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let written = world.ledger.future_entries;
    if written == 0 || world.counts.contains_key("disks lost") {
        return Ok(());
    }
    for (index, core) in world.up() {
        let held = core.intent().entries().filter(|entry| entry.key.kind == crate::world::FUTURE_KIND).count() as u64;
        if held != written {
            return Err(format!("node {index} holds {held} of {written} entries that only newer binaries can read"));
        }
    }
    Ok(())
}
