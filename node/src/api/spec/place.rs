//! Placement and reservations, between Docker's words and shoal's.

use bollard::models::{
    Platform, ResourceObject, TaskSpecPlacement, TaskSpecPlacementPreferences, TaskSpecPlacementSpread,
};
use shoal_cluster::intent::constraint::{Constraint, Spread};
use shoal_cluster::intent::service::{PlacementSpec, Reserved};

use super::accept::AcceptError;

/// Accepts what a task reserves.
pub(super) fn reserved(given: Option<&ResourceObject>) -> Result<Reserved, AcceptError> {
    let amount = |field, amount: Option<i64>| {
        u64::try_from(amount.unwrap_or_default())
            .map_err(|_| AcceptError::Invalid { field, reason: "it is negative".to_owned() })
    };
    let Some(given) = given else { return Ok(Reserved::default()) };
    Ok(Reserved {
        nano_cpus: amount("Resources.Reservations.NanoCPUs", given.nano_cpus)?,
        memory_bytes: amount("Resources.Reservations.MemoryBytes", given.memory_bytes)?,
    })
}

/// Accepts constraints, preferences, platforms and the number of replicas per node.
pub(super) fn placement(given: Option<&TaskSpecPlacement>) -> Result<PlacementSpec, AcceptError> {
    let Some(given) = given else { return Ok(PlacementSpec::default()) };
    let constraints = given.constraints.iter().flatten().map(|text| Constraint::parse(text));
    let descriptor = |preference: &TaskSpecPlacementPreferences| {
        let spread = preference.spread.as_ref().and_then(|spread| spread.spread_descriptor.clone());
        Spread::parse(&spread.unwrap_or_default())
    };
    let most = given.max_replicas.unwrap_or_default();
    Ok(PlacementSpec {
        constraints: constraints.collect::<Result<_, _>>()?,
        spread: given.preferences.iter().flatten().map(descriptor).collect::<Result<_, _>>()?,
        replicas_per_node_max: u32::try_from(most).map_err(|_| AcceptError::Invalid {
            field: "Placement.MaxReplicas",
            reason: format!("{most} replicas per node"),
        })?,
        platforms: given.platforms.iter().flatten().map(platform).collect(),
    })
}

fn platform(platform: &Platform) -> (String, String) {
    (platform.os.clone().unwrap_or_default(), platform.architecture.clone().unwrap_or_default())
}

/// Shows what a task reserves; nothing if that is nothing.
pub(super) fn show_reserved(reserved: &Reserved) -> Option<ResourceObject> {
    let amount = |amount: u64| (amount > 0).then(|| i64::try_from(amount).unwrap_or(i64::MAX));
    let shown = ResourceObject {
        nano_cpus: amount(reserved.nano_cpus),
        memory_bytes: amount(reserved.memory_bytes),
        generic_resources: None,
    };
    (shown != ResourceObject::default()).then_some(shown)
}

/// Shows where tasks may run.
pub(super) fn show_placement(placement: &PlacementSpec) -> TaskSpecPlacement {
    let preference = |spread: &Spread| TaskSpecPlacementPreferences {
        spread: Some(TaskSpecPlacementSpread { spread_descriptor: Some(spread.attribute().to_string()) }),
    };
    let platform = |(os, architecture): &(String, String)| Platform {
        os: (!os.is_empty()).then(|| os.clone()),
        architecture: (!architecture.is_empty()).then(|| architecture.clone()),
    };
    let constraints: Vec<String> = placement.constraints.iter().map(ToString::to_string).collect();
    let preferences: Vec<_> = placement.spread.iter().map(preference).collect();
    let platforms: Vec<_> = placement.platforms.iter().map(platform).collect();
    TaskSpecPlacement {
        constraints: (!constraints.is_empty()).then_some(constraints),
        preferences: (!preferences.is_empty()).then_some(preferences),
        max_replicas: (placement.replicas_per_node_max > 0).then_some(i64::from(placement.replicas_per_node_max)),
        platforms: (!platforms.is_empty()).then_some(platforms),
    }
}
