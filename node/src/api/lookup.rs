//! Lookups: nodes and services by id, by name, or by the beginning of an id that no other shares, as Docker has it.

use shoal_cluster::intent::service::Service;
use shoal_cluster::membership::member::Member;
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
    let mut named = views.members.iter().filter(|member| member.meta.name.folded() == text.to_ascii_lowercase());
    // Names are unique by admission, but a node that was wiped and joined again has the name of its former self.
    let (first, rest) = (named.next(), named.count());
    if rest > 0 {
        let mut up = views
            .members
            .iter()
            .filter(|member| member.state.is_up() && member.meta.name.folded() == text.to_ascii_lowercase());
        return match (up.next(), up.next()) {
            (Some(member), None) => Ok(member),
            _ => Err(ambiguous("node", text, rest + 1)),
        };
    }
    find("node", text, views.members.iter(), |member| member.id.to_string(), first)
}

/// Returns a node's name, or its id if it is not known any more.
pub(super) fn node_name(views: &Views, id: &NodeId) -> String {
    views.member(id).map_or_else(|| id.to_string(), |member| member.meta.name.to_string())
}

/// Finds a task by its id.
pub(super) fn task<'a>(views: &'a Views, text: &str) -> Result<&'a TaskView, ApiError> {
    find("task", text, views.tasks.iter(), |task| task.report.id.to_string(), None)
}

fn find<'a, T>(
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
