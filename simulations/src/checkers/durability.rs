//! Promise 3: nothing acknowledged is lost.
//!
//! A node that has lost its log, and whose wrong clock keeps it from learning, writes over what it does not know. Such a
//! write is concurrent: it may lose, but it is kept as a conflict, and that is what is looked for then.

use std::collections::BTreeMap;

use shoal_cluster::Cluster;
use shoal_cluster::intent::Entry;
use shoal_cluster::intent::key::Key;
use shoal_cluster::intent::name::Name;

use crate::workload::{self, Wanted};
use crate::world::World;

/// Compares the ledger with what the first node that is up holds; agreement is another checker's matter.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let Some((_, core)) = world.up().next() else { return Err("no node is up".to_owned()) };
    let services: BTreeMap<&str, u64> = core
        .intent()
        .services()
        .map(|service| (service.spec.name.folded(), workload::number(service).unwrap_or(0)))
        .collect();
    for (name, history) in &world.ledger.services {
        let held = services.get(name.as_str()).copied();
        let last = history.acknowledged.unwrap_or(None);
        let concurrent = world.counts.contains_key("disks lost") && keeps(core, name, last);
        if held != last && !history.unanswered.contains(&held) && !concurrent {
            return Err(format!("{name} is at write {held:?}, but {last:?} was acknowledged last"));
        }
    }
    Ok(())
}

/// Tells whether a write is among the versions that a node keeps of a service.
fn keeps(core: &Cluster, name: &str, write: Wanted) -> bool {
    let key = Key::service(&Name::new(name).expect("a plain name"));
    core.intent().versions(&key).iter().any(|version| {
        let entry = Entry { key: key.clone(), version: version.clone() };
        entry.service().as_ref().and_then(workload::number) == write
    })
}
