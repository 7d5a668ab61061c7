//! Promise 3: a write of which its node says that it is on another disk is on another disk.
//!
//! Looked at when the writer's disk is lost, which is when it matters.

use shoal_cluster::crdt::Dot;
use shoal_cluster::intent::Entry;
use shoal_cluster::record::Record;

use crate::world::World;

/// Looks on the disks of the others for all of a node's writes of which that node knows of a copy.
pub(crate) fn check(world: &World, node: usize) -> Result<(), String> {
    let Some(core) = &world.nodes[node].core else { return Ok(()) };
    let actor = core.intent().actor();
    // One that was overwritten needs no copy, and whoever had the copy may have lost its disk since.
    let own = core.intent().entries().map(|entry| entry.version.dot).filter(|dot| dot.actor == actor);
    let mut missing: Vec<Dot> = own.filter(|dot| core.copies(dot.counter) > 0).collect();
    let others = || world.nodes.iter().enumerate().filter(|(other, _)| *other != node).map(|(_, other)| other);
    if others().any(|other| other.lost_us > world.nodes[node].started_us) {
        return Ok(());
    }
    for record in others().flat_map(|other| other.disk.records()) {
        if missing.is_empty() {
            return Ok(());
        }
        if let Ok(Record::Entry(Entry { version, .. })) = Record::decode(record) {
            missing.retain(|dot| *dot != version.dot && !version.context.covers(dot));
        }
    }
    match missing.first().map(|dot| dot.counter) {
        Some(write) => {
            Err(format!("was told of {} copies of its write {write}, and there is none", core.copies(write)))
        }
        None => Ok(()),
    }
}
