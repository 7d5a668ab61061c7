//! `/shoal/plan` and `/shoal/why`: what placement decided, what it would decide, and why.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use shoal_cluster::plan::forecast::{Change, Forecast};
use shoal_cluster::plan::placement::{Assignments, Inputs, Placement, Why};
use shoal_cluster::{NodeId, ServiceId, Views};

use super::error::{ApiError, shown};
use super::params::Params;
use super::status::{Moved, NodePlan, PlanAnswer, WhyAnswer};
use super::{NodeHandle, bonds, lookup};

/// Most changes that one forecast may name, and most nodes that may join in it.
const CHANGES_MAX: usize = 1_000;
/// Most moved slots that one answer shows.
const MOVES_MAX: usize = 10_000;
/// What is added to why a slot is where it is while nothing runs in it there.
const WAITS: &str = "; it waits for room there: a task runs on whose slot no node has";

/// `GET /shoal/plan?change=fail:NODE,drain:NODE,join:N:LABEL=VALUE:…`
pub(super) async fn plan(State(node): State<NodeHandle>, params: Params) -> Result<Json<PlanAnswer>, ApiError> {
    let views = node.views();
    let texts = params.text("change").unwrap_or_default().split(',').filter(|text| !text.is_empty());
    let changes: Vec<Change> =
        texts.take(CHANGES_MAX).map(|text| change(&views, node.about.id, text)).collect::<Result<_, _>>()?;
    let inputs = Inputs::clone(&views.inputs);
    // The largest shoals take a second.
    let computed = tokio::task::spawn_blocking(move || Forecast::of(inputs, &changes)).await;
    let forecast = computed.map_err(|error| ApiError::internal(&error))?;
    Ok(Json(answer(&views, &forecast)))
}

/// `GET /shoal/why?service=NAME&slot=N`
pub(super) async fn why(State(node): State<NodeHandle>, params: Params) -> Result<Json<WhyAnswer>, ApiError> {
    let views = node.views();
    let service = lookup::service(&views, params.text("service").unwrap_or_default())?;
    let slot = u32::try_from(params.number("slot")?).unwrap_or(u32::MAX);
    let (id, name) = (service.id, service.spec.name.to_string());
    let fence = bonds::fence_of(&views, service);
    let (waits, has_slot) = (bonds::waits_for(&views, service, slot), service.spec.has_slot(slot));
    let inputs = Inputs::clone(&views.inputs);
    let computed = tokio::task::spawn_blocking(move || Placement::of(inputs)).await;
    let placement = computed.map_err(|error| ApiError::internal(&error))?;
    let why = placement.why(&id, slot);
    let waits = waits.filter(|_| !matches!(&why, Some(why) if !matches!(why, Why::Pending(_))) && has_slot);
    if let Some(waits) = waits {
        let why = why.map_or_else(|| waits.clone(), |why| format!("{waits}: {why}"));
        return Ok(Json(WhyAnswer { service: name, slot, node: None, why, refused: Vec::new() }));
    }
    let why = why.ok_or_else(|| ApiError::not_found("slot", &format!("{name}.{slot}")))?;
    let assignments = placement.assignments();
    let at = assignments.get(&(id, slot)).copied();
    let waits = if views.waits(&assignments, &(id, slot)) { WAITS } else { "" };
    let runs = views.tasks.iter().any(|task| {
        (task.report.service, task.report.slot) == (id, slot) && task.reachable && !task.report.state.is_final()
    });
    let fence = fence.filter(|_| !runs).map_or_else(String::new, |fence| format!("; {fence}"));
    let refused = match &why {
        Why::Displaced { refused } => refused.clone(),
        _ => Vec::new(),
    };
    Ok(Json(WhyAnswer {
        service: name,
        slot,
        node: at.map(|at| lookup::node_name(&views, &at)),
        why: format!("{why}{waits}{fence}"),
        refused: refused.iter().map(|node| lookup::node_name(&views, node)).collect(),
    }))
}

/// Reads one change.
fn change(views: &Views, own: NodeId, text: &str) -> Result<Change, ApiError> {
    let wrong = || {
        let expected = "expected fail:NODE, drain:NODE or join:COUNT[:LABEL=VALUE…]";
        ApiError::BadRequest(format!("invalid change {:?}: {expected}", shown(text)))
    };
    let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
    match kind {
        "fail" => Ok(Change::Fail(lookup::node(views, own, rest)?.id)),
        "drain" => Ok(Change::Drain(lookup::node(views, own, rest)?.id)),
        "join" => {
            let (count, labels) = rest.split_once(':').unwrap_or((rest, ""));
            let count = count.parse().ok().filter(|count| *count <= CHANGES_MAX as u32).ok_or_else(wrong)?;
            let label = |label: &str| label.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
            let labels = labels.split(':').filter(|label| !label.is_empty()).map(|text| label(text).ok_or_else(wrong));
            Ok(Change::Join { count, labels: labels.collect::<Result<BTreeMap<_, _>, _>>()? })
        }
        _ => Err(wrong()),
    }
}

fn answer(views: &Views, forecast: &Forecast) -> PlanAnswer {
    let (before, after) = (forecast.before.assignments(), forecast.after.assignments());
    let moves = forecast.moves();
    let named = |node: &NodeId| {
        let input = forecast.after.inputs().nodes.iter().find(|input| input.id == *node);
        input.map_or_else(|| lookup::node_name(views, node), |input| input.hostname.clone())
    };
    let shown = moves.iter().take(MOVES_MAX).map(|one| Moved {
        slot: format!("{}.{}", service_name(views, &one.slot.0), one.slot.1),
        from: one.from.map(|node| named(&node)),
        to: one.to.map(|node| named(&node)),
        why: forecast.after.why(&one.slot.0, one.slot.1).map(|why| why.to_string()).unwrap_or_default(),
    });
    let inputs = [forecast.before.inputs(), forecast.after.inputs()];
    let mut ids: Vec<NodeId> = inputs.iter().flat_map(|inputs| inputs.nodes.iter().map(|node| node.id)).collect();
    ids.sort_unstable();
    ids.dedup();
    let nodes = ids.iter().map(|id| NodePlan { name: named(id), tasks: slots(&before, id), then: slots(&after, id) });
    PlanAnswer {
        digest: super::shoal::hex(&after.digest()),
        nodes: nodes.collect(),
        moved: moves.len() as u64,
        moves: shown.collect(),
        pending: forecast.after.pending() as u64,
    }
}

fn slots(assignments: &Assignments, node: &NodeId) -> u64 {
    assignments.of(node).count() as u64
}

fn service_name(views: &Views, id: &ServiceId) -> String {
    let service = views.services.iter().find(|service| service.id == *id);
    service.map_or_else(|| id.to_string(), |service| service.spec.name.to_string())
}
