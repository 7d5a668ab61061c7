//! Rollouts as clients see them: Docker's `UpdateStatus`, and `/shoal/services/{id}/history`, what a service was and when.

use axum::Json;
use axum::extract::State;
use bollard::models::{ServiceUpdateStatus, ServiceUpdateStatusStateEnum as DockerState};
use serde::{Deserialize, Serialize};
use shoal_cluster::intent::history::Ended;
use shoal_cluster::intent::service::{Service, ServiceSpec};
use shoal_cluster::intent::update::Verdict;
use shoal_cluster::{NodeId, Views};

use super::error::ApiError;
use super::params::Segment;
use super::spec::image_text;
use super::time::rfc3339;
use super::{NodeHandle, lookup};

/// Returns how far the rollout of a service has come, in Docker's words; none if it never had any.
pub(super) fn update_status(views: &Views, service: &Service) -> Option<ServiceUpdateStatus> {
    let rollout = service.rollout?;
    let view = views.rollouts.get(&service.id)?;
    let task = view.task.map(|task| format!(" due to failure or early termination of task {task}"));
    let task = task.unwrap_or_default();
    let of = format!("{} of {} tasks have arrived", view.arrived, view.slots);
    let (state, message) = match (view.verdict, rollout.backward) {
        (Verdict::Progressing, false) => (DockerState::UPDATING, format!("update in progress: {of}")),
        (Verdict::Progressing, true) => (DockerState::ROLLBACK_STARTED, format!("manually requested rollback: {of}")),
        (Verdict::Completed, false) => (DockerState::COMPLETED, "update completed".to_owned()),
        (Verdict::Paused, false) => (DockerState::PAUSED, format!("update paused{task}")),
        (Verdict::RolledBack, _) => (DockerState::ROLLBACK_STARTED, format!("update rolled back{task}: {of}")),
        (Verdict::RollbackCompleted, _) | (Verdict::Completed, true) => {
            (DockerState::ROLLBACK_COMPLETED, "rollback completed".to_owned())
        }
        (Verdict::RollbackPaused, _) | (Verdict::Paused, true) => {
            (DockerState::ROLLBACK_PAUSED, format!("rollback paused{task}"))
        }
    };
    let completed = matches!(state, DockerState::COMPLETED | DockerState::ROLLBACK_COMPLETED);
    Some(ServiceUpdateStatus {
        state: Some(state),
        started_at: Some(rfc3339(rollout.started_ms)),
        completed_at: view.ruled_ms.filter(|_| completed).map(rfc3339),
        message: Some(message),
    })
}

/// One version of a service.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Past {
    /// Its number, to roll back to.
    pub version: u64,
    /// When it was written last.
    pub written_at: String,
    /// The node on which, by name, or by id if it is gone.
    pub author: String,
    /// The image.
    pub image: String,
    /// How many replicas; absent if global.
    pub replicas: Option<u32>,
    /// How far it has come, or had when it was replaced.
    pub state: String,
}

/// `GET /shoal/services/{id or name}/history`: the present version first.
pub(super) async fn history(State(node): State<NodeHandle>, Segment(id): Segment) -> Result<Json<Vec<Past>>, ApiError> {
    let views = node.views();
    let service = lookup::service(&views, &id)?;
    let author = |id: &NodeId| views.member(id).map_or_else(|| id.to_string(), |member| member.meta.name.to_string());
    let state = update_status(&views, service).and_then(|status| status.state);
    let state = state.map_or_else(|| "running".to_owned(), |state| state.to_string());
    let past = |version, written_ms, by: &NodeId, spec: &ServiceSpec, state: String| Past {
        version,
        written_at: rfc3339(written_ms),
        author: author(by),
        image: image_text(&spec.task.image),
        replicas: (!spec.mode.is_global()).then_some(spec.replicas),
        state,
    };
    let present = past(service.version, service.updated_ms, &service.author, &service.spec, state);
    let earlier = service.history.iter().map(|kept| {
        let ended = match kept.ended {
            Ended::Completed => "completed",
            Ended::Replaced => "replaced",
            Ended::Paused => "paused",
            Ended::RolledBack => "rolled back",
        };
        past(kept.version, kept.written_ms, &kept.author, &kept.spec, ended.to_owned())
    });
    Ok(Json(std::iter::once(present).chain(earlier).collect()))
}
