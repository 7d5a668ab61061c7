//! `/tasks`: what runs where, as the nodes report it, and the slots that wait for a task.
//!
//! A slot that no node reports for yet is shown as a pending task with an id derived from the slot, so that it stays
//! the same between two looks.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use bollard::models::{
    ContainerStatus, ObjectVersion, Task, TaskSpec as DockerTaskSpec, TaskSpecContainerSpec, TaskState as DockerState,
    TaskStatus,
};
use shoal_cluster::intent::service::{Mode, Service, TaskSpec};
use shoal_cluster::reports::task::TaskState;
use shoal_cluster::view::TaskView;
use shoal_cluster::{NodeId, ServiceId, TaskId, Views, hash};

use super::error::{ApiError, shown};
use super::filters::{Filters, in_map};
use super::params::{Params, Segment};
use super::spec::{Spelt, show_template_of};
use super::time::rfc3339;
use super::{NodeHandle, bonds, jobs, lookup};

const FILTERS: &[&str] = &["id", "name", "label", "service", "node", "desired-state", "_up-to-date", "runtime"];
/// Most slots without a task that one answer shows, so that a service that cannot be placed stays readable.
const PENDING_MAX: usize = 10_000;

/// What a list of tasks is narrowed down to.
#[derive(Debug, Default)]
struct Wanted {
    services: Option<BTreeSet<ServiceId>>,
    nodes: Option<BTreeSet<NodeId>>,
    up_to_date: Option<bool>,
    filters: Filters,
}

/// `GET /tasks`
pub(super) async fn list(State(node): State<NodeHandle>, params: Params) -> Result<Spelt<Vec<Task>>, ApiError> {
    let views = node.views();
    let wanted = Wanted::read(&params, &views, node.about.id)?;
    Ok(Spelt(tasks(&views, &wanted)))
}

/// `GET /tasks/{id}`
pub(super) async fn inspect(State(node): State<NodeHandle>, Segment(id): Segment) -> Result<Spelt<Task>, ApiError> {
    let views = node.views();
    let all = tasks(&views, &Wanted::default());
    let has_id = |task: &&Task| task.id.as_deref() == Some(id.as_str());
    if let Some(task) = all.iter().find(has_id) {
        return Ok(Spelt(task.clone()));
    }
    let found = lookup::task(&views, &id)?.report.id.to_string();
    let task = all.into_iter().find(|task| task.id.as_ref() == Some(&found));
    task.map(Spelt).ok_or_else(|| ApiError::not_found("task", &id))
}

impl Wanted {
    fn read(params: &Params, views: &Views, own: NodeId) -> Result<Self, ApiError> {
        let filters = Filters::read(params, FILTERS)?;
        let services: BTreeSet<_> = filters
            .values("service")
            .map(|text| Ok(lookup::service(views, text)?.id))
            .collect::<Result<_, ApiError>>()?;
        // Labels are those of the service, as in Swarm: by them the tasks of a stack are found.
        let labelled = |service: &&Service| {
            let labels = service.spec.labels.clone().into_iter().collect();
            filters.labels("label", in_map(&labels)) && (services.is_empty() || services.contains(&service.id))
        };
        let chosen = filters.values("label").next().is_some() || !services.is_empty();
        let services = views.services.iter().filter(labelled).map(|service| service.id).collect();
        let nodes: BTreeSet<_> = filters
            .values("node")
            .map(|text| Ok(lookup::node(views, own, text)?.id))
            .collect::<Result<_, ApiError>>()?;
        if let Some(state) = filters.values("desired-state").find(|state| !desired_word(state)) {
            return Err(ApiError::BadRequest(format!("invalid filter 'desired-state={}'", shown(state))));
        }
        Ok(Self {
            services: chosen.then_some(services),
            nodes: (!nodes.is_empty()).then_some(nodes),
            up_to_date: filters.flag("_up-to-date")?,
            filters,
        })
    }

    fn service(&self, id: ServiceId) -> bool {
        self.services.as_ref().is_none_or(|services| services.contains(&id))
    }

    /// Tells whether a task on this node is wanted; one that waits for a node is on none.
    fn node(&self, id: Option<NodeId>) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| id.is_some_and(|id| nodes.contains(&id)))
    }

    fn revision(&self, views: &Views, revision: u64, service: Option<&Service>) -> bool {
        let present = |service: &Service| service.effective(views.verdict(&service.id)).0 == revision;
        self.up_to_date.is_none_or(|wanted| wanted == service.is_some_and(present))
    }

    fn task(&self, task: &Task, service_name: Option<&str>) -> bool {
        let id = task.id.as_deref().unwrap_or_default();
        let name = format!("{}.{}", service_name.unwrap_or_default(), task.slot.unwrap_or_default());
        let desired = task.desired_state.map_or(String::new(), |state| word(state).to_owned());
        self.filters.any("id", |prefix| id.starts_with(prefix))
            && self.filters.any("name", |prefix| name.starts_with(prefix))
            && self.filters.any("desired-state", |state| state == desired)
            && self.filters.any("runtime", |runtime| runtime == "container")
    }
}

/// Tells whether a text is a state that can be desired of a task.
fn desired_word(text: &str) -> bool {
    matches!(text, "running" | "shutdown" | "accepted" | "ready" | "complete" | "remove")
}

fn word(state: DockerState) -> &'static str {
    match state {
        DockerState::RUNNING => "running",
        DockerState::COMPLETE => "complete",
        // Nothing else is ever desired here.
        _ => "shutdown",
    }
}

fn tasks(views: &Views, wanted: &Wanted) -> Vec<Task> {
    let services: BTreeMap<ServiceId, &Service> = views.services.iter().map(|service| (service.id, service)).collect();
    let reported = reported(views, wanted, &services);
    let pending = if wanted.nodes.is_some() { Vec::new() } else { pending(views, wanted) };
    let all = reported.into_iter().chain(pending);
    let name = |service: Option<&Service>| service.map(|service| service.spec.name.to_string());
    all.filter(|(service, task)| wanted.task(task, name(*service).as_deref())).map(|(_, task)| task).collect()
}

/// A task and its service, if that is still there.
type Listed<'a> = (Option<&'a Service>, Task);

fn reported<'a>(views: &'a Views, wanted: &Wanted, services: &BTreeMap<ServiceId, &'a Service>) -> Vec<Listed<'a>> {
    // Clients show the tasks of a slot by the time of their creation, which nobody reports: it is made up here so
    // that the wanted ones come first and the others follow as the views have them, the newest first.
    let mut order: Vec<&TaskView> = views.tasks.iter().collect();
    order.sort_by_key(|task| (task.report.service, task.report.slot, !is_live(task)));
    let mut last: Option<(ServiceId, u32, u64)> = None;
    let mut shown = Vec::new();
    for task in order {
        let report = &task.report;
        let created_ms = match last {
            Some((service, slot, ms)) if (service, slot) == (report.service, report.slot) => {
                report.since_ms.min(ms.saturating_sub(1))
            }
            _ => report.since_ms,
        };
        last = Some((report.service, report.slot, created_ms));
        let service = services.get(&report.service).copied();
        let revision = wanted.revision(views, report.revision, service);
        if revision && wanted.service(report.service) && wanted.node(Some(task.node)) {
            shown.push((service, show(task, service, created_ms)));
        }
    }
    shown
}

/// Tells whether a task is wanted and has not ended.
fn is_live(task: &TaskView) -> bool {
    task.desired && task.reachable && !task.report.state.is_final() && task.report.state != TaskState::Stopping
}

fn show(task: &TaskView, service: Option<&Service>, created_ms: u64) -> Task {
    let report = &task.report;
    let job = service.is_some_and(|service| service.spec.mode.is_job());
    let desired = match is_live(task) {
        _ if job && (is_live(task) || report.state == TaskState::Complete) => DockerState::COMPLETE,
        true => DockerState::RUNNING,
        false => DockerState::SHUTDOWN,
    };
    Task {
        id: Some(report.id.to_string()),
        version: Some(ObjectVersion { index: Some(report.since_ms) }),
        created_at: Some(rfc3339(created_ms)),
        updated_at: Some(rfc3339(report.since_ms)),
        labels: Some(Default::default()),
        spec: Some(task_spec(service, report.revision)),
        service_id: Some(report.service.to_string()),
        slot: service.map_or_else(|| Some(i64::from(report.slot)), |service| slot_shown(service, report.slot)),
        node_id: Some(task.node.to_string()),
        status: Some(status(task)),
        desired_state: Some(desired),
        job_iteration: job.then(|| jobs::iteration(report.revision)),
        ..Task::default()
    }
}

/// Returns what a task runs. Of revisions that its service does not keep nobody but the task's node knows the spec, so it
/// is left empty.
fn task_spec(service: Option<&Service>, revision: u64) -> DockerTaskSpec {
    let spec = service.and_then(|service| {
        let mut kept = service.history.iter().map(|kept| (kept.revision, &kept.spec));
        let present = (service.revision, &service.spec);
        let (_, spec) = if present.0 == revision { Some(present) } else { kept.find(|kept| kept.0 == revision) }?;
        Some(show_template_of(&service.spec, &spec.task))
    });
    spec.unwrap_or_else(|| DockerTaskSpec {
        container_spec: Some(TaskSpecContainerSpec { image: Some(String::new()), ..Default::default() }),
        ..DockerTaskSpec::default()
    })
}

fn status(task: &TaskView) -> TaskStatus {
    let report = &task.report;
    let (state, message) = match report.state {
        TaskState::Accepted => (DockerState::ACCEPTED, "accepted"),
        TaskState::Preparing => (DockerState::PREPARING, "preparing"),
        TaskState::Starting => (DockerState::STARTING, "starting"),
        TaskState::Running => (DockerState::RUNNING, "started"),
        TaskState::Stopping => (DockerState::RUNNING, "stopping"),
        TaskState::Complete => (DockerState::COMPLETE, "finished"),
        TaskState::Failed => (DockerState::FAILED, "started"),
        TaskState::Shutdown => (DockerState::SHUTDOWN, "shutdown"),
    };
    let error = match (report.error.as_str(), report.exit_code) {
        _ if !task.reachable && !report.state.is_final() => Some("its node is down".to_owned()),
        ("", Some(code)) if report.state == TaskState::Failed => Some(format!("task: non-zero exit ({code})")),
        ("", _) => None,
        (error, _) => Some(error.to_owned()),
    };
    let started = report.state >= TaskState::Running;
    TaskStatus {
        timestamp: Some(rfc3339(report.since_ms)),
        state: Some(state),
        message: Some(message.to_owned()),
        err: error,
        container_status: started.then(|| ContainerStatus {
            container_id: Some(report.id.to_string()),
            pid: None,
            exit_code: report.exit_code.map(i64::from),
        }),
        port_status: None,
    }
}

/// Returns the slots that have no task yet, as tasks that wait.
fn pending<'a>(views: &'a Views, wanted: &Wanted) -> Vec<Listed<'a>> {
    let taken: BTreeSet<(ServiceId, u32)> = views
        .tasks
        .iter()
        .filter(|task| task.desired && task.reachable)
        .map(|task| (task.report.service, task.report.slot))
        .collect();
    let mut latest_ms: BTreeMap<(ServiceId, u32), u64> = BTreeMap::new();
    for TaskView { report, .. } in &views.tasks {
        let latest = latest_ms.entry((report.service, report.slot)).or_default();
        *latest = report.since_ms.max(*latest);
    }
    // Later than all others of its slot, so that clients show those as its history.
    let since_ms = |service: &Service, slot: u32| {
        let latest = latest_ms.get(&(service.id, slot)).map_or(0, |latest| latest.saturating_add(1));
        service.updated_ms.max(latest)
    };
    let effective = |service: &'a Service| service.effective(views.verdict(&service.id));
    let services = views
        .services
        .iter()
        .filter(|service| wanted.service(service.id) && wanted.revision(views, effective(service).0, Some(service)));
    let slots = services.flat_map(|service| numbers(views, service).into_iter().map(move |slot| (service, slot)));
    let free = slots.filter(|(service, slot)| !taken.contains(&(service.id, *slot)));
    let waiting = |(service, slot)| {
        let error =
            bonds::waits_for(views, service, slot).or_else(|| bonds::fence_of(views, service).map(str::to_owned));
        let since = since_ms(service, slot);
        let task = waiting(service, effective(service), slot, since);
        // Docker's client looks for the nodes of a global job's tasks once, at first.
        let at = views.assignments.get(&(service.id, slot)).filter(|_| service.spec.mode.is_global());
        let node_id = at.map(ToString::to_string);
        (Some(service), Task { status: Some(waits(since, error)), node_id, ..task })
    };
    free.take(PENDING_MAX).map(waiting).collect()
}

/// Returns a slot as Docker shows it: tasks of global services have none.
fn slot_shown(service: &Service, slot: u32) -> Option<i64> {
    (!service.spec.mode.is_global()).then_some(i64::from(slot))
}

/// Returns the numbers of a service's slots; those of a global one stand for nodes.
fn numbers(views: &Views, service: &Service) -> Vec<u32> {
    match service.spec.mode {
        Mode::Replicated => (1..=service.spec.replicas).collect(),
        Mode::ReplicatedJob { .. } => jobs::open(views, service),
        Mode::Global | Mode::GlobalJob => views.assignments.slots(&service.id).map(|(slot, _)| slot).collect(),
    }
}

fn waits(since_ms: u64, error: Option<String>) -> TaskStatus {
    TaskStatus {
        timestamp: Some(rfc3339(since_ms)),
        state: Some(DockerState::PENDING),
        message: Some("waiting for a node".to_owned()),
        err: error,
        ..TaskStatus::default()
    }
}

fn waiting(service: &Service, (revision, task): (u64, &TaskSpec), slot: u32, since_ms: u64) -> Task {
    let parts: [&[u8]; 3] = [&service.id.0, &slot.to_be_bytes(), &revision.to_be_bytes()];
    let (since, job) = (rfc3339(since_ms), service.spec.mode.is_job());
    Task {
        id: Some(TaskId(hash::id128("pending-task", &parts)).to_string()),
        version: Some(ObjectVersion { index: Some(service.version) }),
        created_at: Some(since.clone()),
        updated_at: Some(since.clone()),
        labels: Some(Default::default()),
        spec: Some(show_template_of(&service.spec, task)),
        service_id: Some(service.id.to_string()),
        slot: slot_shown(service, slot),
        desired_state: Some(if job { DockerState::COMPLETE } else { DockerState::RUNNING }),
        job_iteration: job.then(|| jobs::iteration(revision)),
        ..Task::default()
    }
}
