//! Promise 3: nothing acknowledged is lost.
//!
//! A node that has lost its log, and whose wrong clock keeps it from learning, writes over what it does not know. Such a
//! write is concurrent: it may lose, but it is kept as a conflict, and that is what is looked for then.

use shoal_cluster::Cluster;
use shoal_cluster::intent::Entry;
use shoal_cluster::intent::key::Key;

use crate::workload::{self, Wanted};
use crate::world::World;

/// Compares the ledger with what the first node that is up holds; agreement is another checker's matter.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let Some((_, core)) = world.up().next() else { return Err("no node is up".to_owned()) };
    for (key, history) in &world.ledger.histories {
        let held = workload::held(core, key);
        let last = history.acknowledged.unwrap_or(None);
        let concurrent = world.counts.contains_key("disks lost") && keeps(core, key, last);
        if held != last && !history.unanswered.contains(&held) && !concurrent {
            return Err(format!("{} is at write {held:?}, but {last:?} was acknowledged last", key.name));
        }
    }
    Ok(())
}

/// Tells whether a write is among the versions that a node keeps of a service or object.
fn keeps(core: &Cluster, key: &Key, write: Wanted) -> bool {
    core.intent().versions(key).iter().any(|version| {
        let entry = Entry { key: key.clone(), version: version.clone() };
        workload::number(&entry) == write
    })
}
