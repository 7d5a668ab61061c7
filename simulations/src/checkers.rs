//! One checker for each promise: what must be true of a healed world, and what must be true at every moment.

mod addresses;
mod agreement;
mod constraints;
pub(crate) mod copies;
mod detection;
mod drained;
mod durability;
pub(crate) mod fenced;
mod followed;
pub(crate) mod forecast;
mod graves;
mod jobs;
mod names;
mod objects;
mod relay;
mod replicas;
pub(crate) mod rollouts;
mod room;
pub(crate) mod watch;

use crate::world::World;

pub(crate) use detection::unnoticed;
pub(crate) use graves::kept;
pub(crate) use names::stale;

/// A checker's name and what it found, or nothing.
type Checker = (&'static str, fn(&mut World) -> Result<(), String>);

/// Every checker of a healed world, the cheap ones first.
const ALL: [Checker; 13] = [
    ("agreement", agreement::check),
    ("followed", followed::check),
    ("relay", relay::check),
    ("objects", objects::check),
    ("rollouts", rollouts::check),
    ("jobs", jobs::check),
    ("replicas", replicas::check),
    ("drained", drained::check),
    ("constraints", constraints::check),
    ("room", room::check),
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
