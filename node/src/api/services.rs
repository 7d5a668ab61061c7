//! `/services`: what operators declare.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use bollard::models::{
    ObjectVersion, Service as DockerService, ServiceEndpoint, ServiceServiceStatus, ServiceSpec as DockerSpec,
};
use serde::Serialize;
use shoal_cluster::intent::service::Service;
use shoal_cluster::reports::task::TaskState;
use shoal_cluster::{Command, Receipt, ServiceId, Views};

use super::body::Parsed;
use super::distribution::pin;
use super::error::ApiError;
use super::filters::{Filters, in_map};
use super::images::login;
use super::params::{Params, Segment};
use super::rollouts::update_status;
use super::spec::{Known, Spelt, accept, mode_word, not_served, show, show_template_of, with_network_ids};
use super::status::{Conflict, Created, Stored};
use super::time::rfc3339;
use super::{NodeHandle, conflicts, jobs, lookup};
use crate::identity::random;

const FILTERS: &[&str] = &["id", "name", "label", "mode", "runtime"];

/// `GET /services`
pub(super) async fn list(
    State(node): State<NodeHandle>,
    params: Params,
) -> Result<Spelt<Vec<DockerService>>, ApiError> {
    let filters = Filters::read(&params, FILTERS)?;
    let views = node.views();
    let chosen = views.services.iter().filter(|service| matches(&filters, service)).map(|service| DockerService {
        service_status: params.flag("status").then(|| status(&views, service)),
        ..shown(&views, service)
    });
    Ok(Spelt(chosen.collect()))
}

fn matches(filters: &Filters, service: &Service) -> bool {
    let labels = service.spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    filters.any("id", |id| service.id.to_string().starts_with(id))
        && filters.any("name", |name| service.spec.name.folded().starts_with(&name.to_ascii_lowercase()))
        && filters.labels("label", in_map(&labels))
        && filters.any("mode", |mode| mode == mode_word(service.spec.mode))
        && filters.any("runtime", |runtime| runtime == "container")
}

/// `GET /services/{id or name}`: Docker's answer, and `Conflict` if there is one.
pub(super) async fn inspect(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
) -> Result<Spelt<Inspected>, ApiError> {
    let views = node.views();
    let service = lookup::service(&views, &id)?;
    // All fields are always filled in, so `insertDefaults` changes nothing.
    Ok(Spelt(Inspected {
        service: DockerService {
            // What our client waits for when it waits for a job.
            service_status: service.spec.mode.is_job().then(|| status(&views, service)),
            ..shown(&views, service)
        },
        previous: service.history.first().map(|kept| show(&kept.spec)),
        conflict: conflicts::of_service(&views, &service.spec.name),
    }))
}

/// A service, and the writes that contradict each other.
#[derive(Debug, Serialize)]
pub(super) struct Inspected {
    #[serde(flatten)]
    service: DockerService,
    #[serde(rename = "PreviousSpec", skip_serializing_if = "Option::is_none")]
    previous: Option<DockerSpec>,
    #[serde(rename = "Conflict", skip_serializing_if = "Option::is_none")]
    conflict: Option<Conflict>,
}

/// `POST /services/create`
pub(super) async fn create(
    State(node): State<NodeHandle>,
    headers: HeaderMap,
    Parsed(mut spec): Parsed<DockerSpec>,
) -> Result<(StatusCode, Json<Created>), ApiError> {
    if spec.name.as_deref().unwrap_or_default().is_empty() {
        spec.name = Some(made_up_name(&spec));
    }
    let mut spec = accept(&Known::of(&node.views()), spec)?;
    spec.task.image = pin(&node, spec.task.image, None, login(&headers)?).await?;
    let (name, warning) = (spec.name.clone(), not_served(&spec.endpoint));
    let applied = node.apply(Command::CreateService(spec)).await?;
    match applied.receipt {
        Receipt::Service { id, .. } => {
            let created = Created { id: id.to_string(), stored: Stored::from(applied).and(warning) };
            Ok((StatusCode::CREATED, Json(created)))
        }
        Receipt::Done => Err(ApiError::Internal(format!("service {name} was created, but its id is not known"))),
    }
}

/// `POST /services/{id or name}/update?version=N`
pub(super) async fn update(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
    headers: HeaderMap,
    Parsed(spec): Parsed<DockerSpec>,
) -> Result<Json<Stored>, ApiError> {
    let version = params.number("version")?;
    if let Some(rollback) = params.text("rollback").filter(|rollback| !rollback.is_empty()) {
        let to = rolled_back_to(rollback)?;
        let id = lookup::service(&node.views(), &id)?.id;
        return Ok(Json(node.apply(Command::RollbackService { id, version, to }).await?.into()));
    }
    let (id, present) = {
        let views = node.views();
        let service = lookup::service(&views, &id)?;
        (service.id, service.spec.task.image.clone())
    };
    let mut spec = accept(&Known::of(&node.views()), spec)?;
    spec.task.image = pin(&node, spec.task.image, Some(&present), login(&headers)?).await?;
    let warning = not_served(&spec.endpoint);
    Ok(Json(Stored::from(node.apply(Command::UpdateService { id, version, spec }).await?).and(warning)))
}

/// Returns the version that a service is to go back to: `previous` is Docker's, a number ours.
fn rolled_back_to(text: &str) -> Result<Option<u64>, ApiError> {
    match text.parse() {
        Ok(version) => Ok(Some(version)),
        Err(_) if text == "previous" => Ok(None),
        Err(_) => Err(ApiError::BadRequest(format!(
            "unrecognized rollback option {}, expected previous or the number of a version",
            super::error::shown(text)
        ))),
    }
}

/// `DELETE /services/{id or name}`
pub(super) async fn remove(State(node): State<NodeHandle>, Segment(id): Segment) -> Result<Json<Stored>, ApiError> {
    let id = lookup::service(&node.views(), &id)?.id;
    Ok(Json(node.apply(Command::RemoveService(id)).await?.into()))
}

fn shown(views: &Views, service: &Service) -> DockerService {
    let mut spec = show(&service.spec);
    // What was rolled back runs what it ran before, and says so.
    let (_, task) = service.effective(views.verdict(&service.id));
    let mut template = show_template_of(&service.spec, task);
    with_network_ids(views, &mut template);
    spec.task_template = Some(template);
    DockerService {
        id: Some(service.id.to_string()),
        version: Some(ObjectVersion { index: Some(service.version) }),
        created_at: Some(rfc3339(service.created_ms)),
        updated_at: Some(rfc3339(service.updated_ms)),
        endpoint: Some(ServiceEndpoint { spec: spec.endpoint_spec.clone(), ..ServiceEndpoint::default() }),
        update_status: update_status(views, service),
        job_status: jobs::status(service),
        spec: Some(spec),
        ..DockerService::default()
    }
}

fn status(views: &Views, service: &Service) -> ServiceServiceStatus {
    ServiceServiceStatus {
        running_tasks: Some(running(views, service.id)),
        desired_tasks: Some(wanted(views, service)),
        completed_tasks: Some(jobs::completed(views, service)),
    }
}

/// Returns how many tasks a service should have at once: of a global one, one for each node that its tasks are on, of a
/// global job also those that have done their work.
pub(super) fn wanted(views: &Views, service: &Service) -> u64 {
    if !service.spec.mode.is_global() {
        return u64::from(service.spec.lanes());
    }
    views.assignments.slots(&service.id).count() as u64 + jobs::completed(views, service)
}

/// Returns how many tasks of a service run where they count: on nodes that are up, and wanted there.
pub(super) fn running(views: &Views, service: ServiceId) -> u64 {
    let tasks = views.tasks.iter().filter(|task| {
        task.report.service == service && task.reachable && task.desired && task.report.state == TaskState::Running
    });
    tasks.count() as u64
}

/// Returns a name for a service that was given none: its image's, and six random characters.
fn made_up_name(spec: &DockerSpec) -> String {
    const RANDOM_CHARS: usize = 6;
    const STEM_CHARS_MAX: usize = 40;
    let image = spec.task_template.as_ref().and_then(|task| task.container_spec.as_ref()?.image.as_deref());
    let path = image.unwrap_or_default().split('@').next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default();
    let stem: String = last.chars().filter(char::is_ascii_alphanumeric).take(STEM_CHARS_MAX).collect();
    let id = ServiceId(random()).to_string();
    let random: String = id.chars().rev().take(RANDOM_CHARS).collect();
    format!("{}-{random}", if stem.is_empty() { "service" } else { &stem })
}

#[cfg(test)]
mod tests {
    use bollard::models::{TaskSpec, TaskSpecContainerSpec};
    use shoal_cluster::intent::name::Name;

    use super::*;

    #[test]
    fn made_up_names_are_valid_and_differ() {
        for image in ["example.org:5000/a/we_b.c:1@sha256:00", "", "-", &"x".repeat(300)] {
            let container = TaskSpecContainerSpec { image: Some(image.to_owned()), ..Default::default() };
            let task = TaskSpec { container_spec: Some(container), ..Default::default() };
            let spec = DockerSpec { task_template: Some(task), ..Default::default() };
            let (one, other) = (made_up_name(&spec), made_up_name(&spec));
            assert!(Name::new(&one).is_ok(), "{one}");
            assert_ne!(one, other);
        }
    }
}
