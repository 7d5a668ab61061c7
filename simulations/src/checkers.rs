//! One checker for each promise: what must be true of a healed world.

mod addresses;
mod agreement;
mod detection;
mod durability;
mod names;
mod replicas;

use crate::world::World;

pub(crate) use detection::unnoticed;

/// A checker's name and what it found, or nothing.
type Checker = (&'static str, fn(&mut World) -> Result<(), String>);

/// Every checker, the cheap ones first.
const ALL: [Checker; 5] = [
    ("agreement", agreement::check),
    ("replicas", replicas::check),
    ("names", names::check),
    ("addresses", addresses::check),
    ("durability", durability::check),
];

/// Returns everything that is wrong now.
pub(crate) fn violations(world: &mut World) -> Vec<String> {
    let mut found = world.ledger.violations.clone();
    for (name, check) in ALL {
        if let Err(what) = check(world) {
            found.push(format!("{name}: {what}"));
        }
    }
    found
}
