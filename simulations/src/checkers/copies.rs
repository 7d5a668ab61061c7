//! Promise 3: a write of which its node says that it is on another disk is on another disk.
//!
//! Looked at when the writer's disk is lost, which is when it matters.

use shoal_cluster::crdt::Dot;
use shoal_cluster::record::Record;

use crate::world::World;

/// Looks for a node's last write on the disks of the others, if that node knows of a copy.
pub(crate) fn check(world: &World, node: usize) -> Result<(), String> {
    let Some(core) = &world.nodes[node].core else { return Ok(()) };
    let write = core.written();
    if write == 0 || core.copies(write) == 0 {
        return Ok(());
    }
    let dot = Dot::new(core.intent().actor(), write);
    // One that was overwritten needs no copy, and whoever had the copy may have lost its disk since.
    let survives = core.intent().entries().any(|entry| entry.version.dot == dot);
    let others = || world.nodes.iter().enumerate().filter(|(other, _)| *other != node).map(|(_, other)| other);
    let lost = others().any(|other| other.lost_us > world.nodes[node].started_us);
    if !survives || lost {
        return Ok(());
    }
    let holds = |record: &Vec<u8>| match Record::decode(record) {
        Ok(Record::Entry(entry)) => entry.version.dot == dot || entry.version.context.covers(&dot),
        Ok(_) | Err(_) => false,
    };
    if others().any(|other| other.disk.records().iter().any(holds)) {
        return Ok(());
    }
    Err(format!("was told of {} copies of its write {write}, and there is none", core.copies(write)))
}
