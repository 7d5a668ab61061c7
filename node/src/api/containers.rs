//! `/containers/json`: this node's tasks, as the containers that they are.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as ContainerState};
use shoal_cluster::Views;
use shoal_cluster::reports::task::TaskState;
use shoal_cluster::view::TaskView;

use super::NodeHandle;
use super::error::ApiError;
use super::filters::{Filters, in_map};
use super::params::Params;
use crate::executor::health::Health;

const FILTERS: &[&str] = &["id", "name", "label", "status", "is-task"];

/// `GET /containers/json`
pub(super) async fn list(
    State(node): State<NodeHandle>,
    params: Params,
) -> Result<Json<Vec<ContainerSummary>>, ApiError> {
    let filters = Filters::read(&params, FILTERS)?;
    let views = node.views();
    let all = params.flag("all") || filters.values("status").next().is_some();
    let here = views.tasks.iter().filter(|task| task.node == node.about.id);
    let started = here.filter(|task| task.report.state >= TaskState::Running);
    let chosen = started.filter(|task| all || !task.report.state.is_final()).map(|task| ContainerSummary {
        status: Some(status(task, node.health.of(&task.report.id))),
        ..show(&views, task)
    });
    Ok(Json(chosen.filter(|container| matches(&filters, container)).collect()))
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

/// Returns where a container is in its life, in Docker's words.
fn status(task: &TaskView, health: Option<Health>) -> String {
    let report = &task.report;
    let word = match report.state {
        TaskState::Complete | TaskState::Failed | TaskState::Shutdown => {
            return format!("Exited ({})", report.exit_code.unwrap_or(137));
        }
        TaskState::Stopping => "Stopping",
        TaskState::Accepted | TaskState::Preparing | TaskState::Starting | TaskState::Running => "Up",
    };
    health.map_or_else(|| word.to_owned(), |health| format!("{word} ({})", health.status))
}

fn show(views: &Views, task: &TaskView) -> ContainerSummary {
    let report = &task.report;
    let service = views.services.iter().find(|service| service.id == report.service);
    let service_name = service.map_or_else(|| report.service.to_string(), |service| service.spec.name.to_string());
    let name = format!("{service_name}.{}.{}", report.slot, report.id);
    let mut labels: HashMap<String, String> = service
        .map(|service| service.spec.task.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
        .unwrap_or_default();
    labels.extend([
        ("com.docker.swarm.node.id".to_owned(), task.node.to_string()),
        ("com.docker.swarm.service.id".to_owned(), report.service.to_string()),
        ("com.docker.swarm.service.name".to_owned(), service_name),
        ("com.docker.swarm.task.id".to_owned(), report.id.to_string()),
        ("com.docker.swarm.task.name".to_owned(), name.clone()),
    ]);
    let state = if report.state.is_final() { ContainerState::EXITED } else { ContainerState::RUNNING };
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
        mounts: Some(Vec::new()),
        ..ContainerSummary::default()
    }
}
