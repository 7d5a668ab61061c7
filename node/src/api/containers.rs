//! `/containers`: tasks as the containers that they are. This node's are listed; those of others are found by name or id.

mod act;
mod inspect;
mod stats;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as ContainerState};
use shoal_cluster::Views;
use shoal_cluster::reports::task::TaskState;
use shoal_cluster::view::TaskView;

use super::error::ApiError;
use super::filters::{Filters, in_map};
use super::params::Params;
use super::spec::image_text;
use super::time::now_ms;
use super::{NodeHandle, lookup};
use crate::cli::words::duration;
use crate::reach::{Answer, Details, Question, ReachError};

pub(super) use act::{kill, stop, top, wait};
pub(super) use inspect::inspect;
pub(super) use stats::stats;

const FILTERS: &[&str] = &["id", "name", "label", "status", "is-task"];

/// `GET /containers/json`
pub(super) async fn list(
    State(node): State<NodeHandle>,
    params: Params,
) -> Result<Json<Vec<ContainerSummary>>, ApiError> {
    let filters = Filters::read(&params, FILTERS)?;
    let views = node.views();
    let limit = params.text("limit").map(|_| params.number("limit")).transpose()?.filter(|limit| *limit > 0);
    let all = params.flag("all") || limit.is_some() || filters.values("status").next().is_some();
    let here = views.tasks.iter().filter(|task| task.node == node.about.id);
    let mut started: Vec<&TaskView> = here.filter(|task| task.report.state >= TaskState::Running).collect();
    started.sort_by_key(|task| (std::cmp::Reverse(task.report.since_ms), task.report.id));
    let chosen = started.into_iter().filter(|task| all || !task.report.state.is_final());
    let shown = chosen.map(|task| show(&views, task)).filter(|container| matches(&filters, container));
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(shown.take(limit).collect()))
}

fn matches(filters: &Filters, container: &ContainerSummary) -> bool {
    let id = container.id.as_deref().unwrap_or_default();
    let names = container.names.as_deref().unwrap_or_default();
    let labels = container.labels.clone().unwrap_or_default();
    let state = if container.state == Some(ContainerState::RUNNING) { "running" } else { "exited" };
    filters.any("id", |prefix| id.starts_with(prefix))
        && filters.any("name", |part| names.iter().any(|name| name.contains(part)))
        && filters.any("status", |status| status == state)
        && filters.any("is-task", |task| matches!(task, "1" | "true"))
        && filters.labels("label", in_map(&labels))
}

/// Finds the task whose container this is.
pub(super) fn find(node: &NodeHandle, text: &str) -> Result<TaskView, ApiError> {
    lookup::container(&node.views(), node.about.id, text).cloned()
}

/// Asks the task's node how its container was made.
pub(super) async fn details(node: &NodeHandle, task: &TaskView) -> Result<Box<Details>, ApiError> {
    match ask(node, task, Question::Details).await? {
        Answer::Details(details) => Ok(details),
        Answer::Sample(_) | Answer::Processes(_) | Answer::Done | Answer::Ended(_) => Err(unexpected()),
    }
}

/// Asks the task's node.
async fn ask(node: &NodeHandle, task: &TaskView, question: Question) -> Result<Answer, ApiError> {
    Ok((node.reach)(task.node).ask(task.report.id, question).await?)
}

fn unexpected() -> ApiError {
    ApiError::Internal("the task's node answered another question".to_owned())
}

impl From<ReachError> for ApiError {
    fn from(error: ReachError) -> Self {
        let text = error.to_string();
        match error {
            ReachError::Missing(_) => Self::NotFound(text),
            ReachError::NotRunning(_) => Self::Conflict(text),
            ReachError::NotRun { .. } => Self::BadRequest(text),
            ReachError::Refused(_) | ReachError::Busy | ReachError::Unreachable(_) => Self::Internal(text),
        }
    }
}

/// Returns the labels of a task's container: those of its service, and Swarm's.
fn labels(views: &Views, task: &TaskView) -> HashMap<String, String> {
    let report = &task.report;
    let service = views.services.iter().find(|service| service.id == report.service);
    let own = service.map(|service| service.spec.task.labels.clone()).unwrap_or_default();
    let name = service.map_or_else(|| report.service.to_string(), |service| service.spec.name.to_string());
    let swarm = [
        ("com.docker.swarm.node.id", task.node.to_string()),
        ("com.docker.swarm.service.id", report.service.to_string()),
        ("com.docker.swarm.service.name", name),
        ("com.docker.swarm.task", String::new()),
        ("com.docker.swarm.task.id", report.id.to_string()),
        ("com.docker.swarm.task.name", lookup::container_name(views, task)),
    ];
    own.into_iter().chain(swarm.map(|(key, value)| (key.to_owned(), value))).collect()
}

/// Returns what events say of a task's container: its labels, its name and its image.
pub(super) fn attributes(views: &Views, task: &TaskView) -> BTreeMap<String, String> {
    let service = views.services.iter().find(|service| service.id == task.report.service);
    let image = service.map_or_else(String::new, |service| image_text(&service.spec.task.image));
    let named = [("name", lookup::container_name(views, task)), ("image", image)];
    labels(views, task).into_iter().chain(named.map(|(key, value)| (key.to_owned(), value))).collect()
}

fn show(views: &Views, task: &TaskView) -> ContainerSummary {
    let report = &task.report;
    let service = views.services.iter().find(|service| service.id == report.service);
    let name = lookup::container_name(views, task);
    let labels = labels(views, task);
    let lasted = duration(Duration::from_millis(now_ms().saturating_sub(report.since_ms)));
    let (state, status) = match report.state {
        TaskState::Complete | TaskState::Failed | TaskState::Shutdown => {
            (ContainerState::EXITED, format!("Exited ({}) {lasted} ago", report.exit_code.unwrap_or(137)))
        }
        TaskState::Stopping => (ContainerState::RUNNING, "Stopping".to_owned()),
        TaskState::Accepted | TaskState::Preparing | TaskState::Starting | TaskState::Running => {
            (ContainerState::RUNNING, format!("Up {lasted}"))
        }
    };
    ContainerSummary {
        id: Some(report.id.to_string()),
        names: Some(vec![format!("/{name}")]),
        image: Some(service.map_or_else(String::new, |service| service.spec.task.image.reference.clone())),
        image_id: Some(String::new()),
        command: Some(service.map_or_else(String::new, |service| service.spec.task.args.join(" "))),
        created: Some(i64::try_from(report.since_ms / 1_000).unwrap_or_default()),
        ports: Some(Vec::new()),
        labels: Some(labels),
        state: Some(state),
        status: Some(status),
        mounts: Some(Vec::new()),
        ..ContainerSummary::default()
    }
}
