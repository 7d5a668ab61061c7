//! Lookups: nodes and services by id, by name, or by the beginning of an id that no other shares, as Docker has it.

use shoal_cluster::intent::service::Service;
use shoal_cluster::membership::member::Member;
use shoal_cluster::reports::task::TaskState;
use shoal_cluster::view::TaskView;
use shoal_cluster::{NodeId, Views};

use super::error::{ApiError, shown};

/// Finds a service.
pub(super) fn service<'a>(views: &'a Views, text: &str) -> Result<&'a Service, ApiError> {
    let named = views.services.iter().find(|service| service.spec.name.folded() == text.to_ascii_lowercase());
    find("service", text, views.services.iter(), |service| service.id.to_string(), named)
}

/// Finds a node; `self` is the one that answers.
pub(super) fn node<'a>(views: &'a Views, own: NodeId, text: &str) -> Result<&'a Member, ApiError> {
    if text == "self" {
        return views.member(&own).ok_or_else(|| ApiError::not_found("node", text));
    }
    let mut named = views.listed().filter(|member| member.meta.name.folded() == text.to_ascii_lowercase());
    // Names are unique by admission, but a node that was wiped and joined again has the name of its former self.
    let (first, rest) = (named.next(), named.count());
    if rest > 0 {
        let mut up = views
            .listed()
            .filter(|member| member.state.is_up() && member.meta.name.folded() == text.to_ascii_lowercase());
        return match (up.next(), up.next()) {
            (Some(member), None) => Ok(member),
            _ => Err(ambiguous("node", text, rest + 1)),
        };
    }
    find("node", text, views.listed(), |member| member.id.to_string(), first)
}

/// Returns a node's name, or its id if it is not known any more.
pub(super) fn node_name(views: &Views, id: &NodeId) -> String {
    views.member(id).map_or_else(|| id.to_string(), |member| member.meta.name.to_string())
}

/// Finds a task by its id.
pub(super) fn task<'a>(views: &'a Views, text: &str) -> Result<&'a TaskView, ApiError> {
    find("task", text, views.tasks.iter(), |task| task.report.id.to_string(), None)
}

/// Returns the name of a task's container: service, slot (for a global service its node) and id, as in Swarm.
pub(super) fn container_name(views: &Views, task: &TaskView) -> String {
    let report = &task.report;
    match views.services.iter().find(|service| service.id == report.service) {
        Some(service) => {
            let global = service.spec.mode.is_global();
            let place = if global { task.node.to_string() } else { report.slot.to_string() };
            format!("{}.{place}.{}", service.spec.name, report.id)
        }
        None => format!("{}.{}.{}", report.service, report.slot, report.id),
    }
}

/// Finds a task by the id or name of its container, or by what they begin with; this node's come first.
pub(super) fn container<'a>(views: &'a Views, own: NodeId, text: &str) -> Result<&'a TaskView, ApiError> {
    let wanted = text.strip_prefix('/').unwrap_or(text);
    let made = views.tasks.iter().filter(|task| task.report.state > TaskState::Preparing);
    let named = |task: &&TaskView| {
        let name = container_name(views, task);
        // Up to its id the name says which, if only one task of the slot runs.
        name == wanted || name.rsplit_once('.').is_some_and(|(slot, _)| slot == wanted && !task.report.state.is_final())
    };
    let mut all: Vec<&TaskView> = made.collect();
    all.sort_by_key(|task| task.node != own);
    let found = all.iter().copied().find(named);
    let missing = || ApiError::NotFound(format!("No such container: {}", shown(text)));
    find("container", wanted, all.iter().copied(), |task| task.report.id.to_string(), found).map_err(
        |error| match error {
            ApiError::NotFound(_) => missing(),
            error => error,
        },
    )
}

/// Finds one of `all` by its id, by its name (it is `named` then), or by the beginning of an id that no other shares.
pub(super) fn find<'a, T>(
    kind: &str,
    text: &str,
    all: impl Iterator<Item = &'a T> + Clone,
    id: impl Fn(&T) -> String,
    named: Option<&'a T>,
) -> Result<&'a T, ApiError> {
    let exact = all.clone().find(|item| id(item) == text).or(named);
    if let Some(found) = exact {
        return Ok(found);
    }
    let mut beginning = all.filter(|item| !text.is_empty() && id(item).starts_with(text));
    match (beginning.next(), beginning.count()) {
        (None, _) => Err(ApiError::not_found(kind, text)),
        (Some(found), 0) => Ok(found),
        (Some(_), more) => Err(ambiguous(kind, text, more + 1)),
    }
}

fn ambiguous(kind: &str, text: &str, count: usize) -> ApiError {
    ApiError::BadRequest(format!("{kind} {} is ambiguous ({count} matches found)", shown(text)))
}
