//! A forecast is what comes: the plan that a change would lead to is the plan that it leads to, to the bit.

use std::collections::BTreeMap;

use shoal_cluster::intent::service::Mode;
use shoal_cluster::plan::forecast::{Change, Forecast};
use shoal_cluster::plan::placement::{Assignments, NodeInput};
use shoal_cluster::{Cluster, ServiceId};

use crate::world::World;

/// What is foreseen, as a digest of who runs what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreseen([u8; 32]);

impl Foreseen {
    /// Leaves out global jobs: a node that joins has done its part before anybody looks.
    fn of(assignments: &Assignments, core: &Cluster) -> Self {
        let mode = |id: &ServiceId| core.intent().service(id).map(|service| service.spec.mode);
        let slots = assignments.iter().filter(|((service, _), _)| mode(service) != Some(Mode::GlobalJob));
        Self(slots.collect::<Assignments>().digest())
    }
}

/// Foresees a change, at the first node that is up. It must be one of whose doing the world then is quiet.
pub(crate) fn foresee(world: &World, change: Change) -> Option<Foreseen> {
    let (_, core) = world.up().next()?;
    let forecast = Forecast::of(core.plan().inputs().as_ref().clone(), &[change]);
    Some(Foreseen::of(&forecast.after.assignments(), core))
}

/// Foresees that a node with these labels joins, at the first node that is up. Returns that node as well, as the forecast
/// has it.
pub(crate) fn foresee_joining(
    world: &World,
    labels: BTreeMap<String, String>,
) -> Result<(Foreseen, NodeInput), String> {
    let (_, core) = world.up().next().ok_or("forecast: no node is up")?;
    let forecast = Forecast::of(core.plan().inputs().as_ref().clone(), &[Change::Join { count: 1, labels }]);
    let known = |node: &NodeInput| forecast.before.inputs().nodes.iter().any(|known| known.id == node.id);
    let new = forecast.after.inputs().nodes.iter().find(|node| !known(node)).cloned();
    let new = new.ok_or("forecast: nobody joins in a forecast that a node joins")?;
    Ok((Foreseen::of(&forecast.after.assignments(), core), new))
}

/// Compares what was foreseen with what has come, at the first node that is up: all of them plan alike.
pub(crate) fn check(world: &World, foreseen: Option<Foreseen>, what: &str) -> Result<(), String> {
    let come = world.up().next().map(|(_, core)| Foreseen::of(&core.plan().assignments, core));
    if come == foreseen { Ok(()) } else { Err(format!("forecast: {what} led to another plan than was foreseen")) }
}
