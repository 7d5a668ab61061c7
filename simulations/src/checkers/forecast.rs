//! A forecast is what comes: the plan that a change would lead to is the plan that it leads to, to the bit.

use shoal_cluster::plan::forecast::{Change, Forecast};

use crate::world::World;

/// What is foreseen, as a digest of who runs what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreseen([u8; 32]);

/// Foresees a change, at the first node that is up. It must be one of whose doing the world then is quiet.
pub(crate) fn foresee(world: &World, change: Change) -> Option<Foreseen> {
    let (_, core) = world.up().next()?;
    let forecast = Forecast::of(core.plan().inputs().as_ref().clone(), &[change]);
    Some(Foreseen(forecast.after.assignments().digest()))
}

/// Compares what was foreseen with what has come, at the first node that is up: all of them plan alike.
pub(crate) fn check(world: &World, foreseen: Option<Foreseen>, what: &str) -> Result<(), String> {
    let come = world.up().next().map(|(_, core)| Foreseen(core.plan().assignments.digest()));
    if come == foreseen { Ok(()) } else { Err(format!("forecast: {what} led to another plan than was foreseen")) }
}
