//! Promise 3: nothing acknowledged is lost.

use crate::workload::WRITE_LABEL;
use crate::world::World;

/// Compares the ledger with what the first node that is up holds; agreement is another checker's matter.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let Some(core) = world.nodes.iter_mut().find_map(|node| node.core.as_mut()) else {
        return Err("no node is up".to_owned());
    };
    let services = core.views().services.clone();
    for (name, history) in &world.ledger.services {
        let held = services
            .iter()
            .find(|service| service.spec.name.as_str() == name)
            .map(|service| service.spec.labels.get(WRITE_LABEL).and_then(|write| write.parse().ok()).unwrap_or(0));
        let last = history.acknowledged.unwrap_or(None);
        if held != last && !history.unanswered.contains(&held) {
            return Err(format!("{name} is at write {held:?}, but {last:?} was acknowledged last"));
        }
    }
    Ok(())
}
