//! Shows a spec of shoal's as one of Docker's.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    Limit, ServiceSpec as DockerSpec, TaskSpec as DockerTaskSpec, TaskSpecContainerSpec, TaskSpecResources,
    TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum as DockerCondition,
};
use shoal_cluster::intent::service::{ImageRef, Resources, RestartCondition, RestartPolicy, ServiceSpec, TaskSpec};

use super::{NS_PER_MS, container as options, health, mode, place, rolling, uses};

/// Returns the spec as Docker has it.
pub(in crate::api) fn show(spec: &ServiceSpec) -> DockerSpec {
    let rolls = !spec.mode.is_job();
    DockerSpec {
        name: Some(spec.name.to_string()),
        labels: Some(map(&spec.labels)),
        task_template: Some(show_template(spec)),
        mode: Some(mode::show(spec)),
        update_config: rolls.then(|| rolling::show_update(&spec.update)),
        rollback_config: rolls.then(|| rolling::show_rollback(&spec.rollback)),
        endpoint_spec: Some(uses::show_endpoint(&spec.endpoint)),
        ..DockerSpec::default()
    }
}

/// Returns what all present tasks of a service are made from, as Docker has it.
fn show_template(spec: &ServiceSpec) -> DockerTaskSpec {
    show_template_of(spec, &spec.task)
}

/// Returns what those tasks of a service are made from that run another of its revisions.
pub(in crate::api) fn show_template_of(spec: &ServiceSpec, task: &TaskSpec) -> DockerTaskSpec {
    let mut template = show_task(task);
    template.networks = uses::show_networks(&spec.networks);
    template.placement = Some(place::show_placement(&spec.placement));
    template.resources.get_or_insert_default().reservations = place::show_reserved(&spec.reserved);
    template
}

/// Returns the task's part of a spec as Docker has it.
fn show_task(task: &TaskSpec) -> DockerTaskSpec {
    let mut container = TaskSpecContainerSpec {
        image: Some(image_text(&task.image)),
        labels: non_empty(map(&task.labels)),
        command: list(&task.command),
        args: list(&task.args),
        env: list(&task.env),
        dir: task.workdir.clone(),
        user: task.user.clone(),
        hostname: task.hostname.clone(),
        read_only: task.read_only.then_some(true),
        stop_signal: task.stop_signal.clone(),
        stop_grace_period: Some(nanoseconds(task.stop_grace_ms)),
        health_check: task.health.as_ref().map(health::show),
        ..TaskSpecContainerSpec::default()
    };
    options::show(&task.container, &mut container);
    DockerTaskSpec {
        container_spec: Some(container),
        resources: Some(TaskSpecResources { limits: limits(&task.limits), ..TaskSpecResources::default() }),
        restart_policy: Some(restart(&task.restart)),
        force_update: Some(task.force_update),
        runtime: Some("container".to_owned()),
        log_driver: options::show_log(task.container.log.as_ref()),
        ..DockerTaskSpec::default()
    }
}

/// Returns an image as Docker writes it: `web:latest@sha256:…` once it is pinned.
pub(in crate::api) fn image_text(image: &ImageRef) -> String {
    match &image.digest {
        Some(digest) => format!("{}@{digest}", image.reference),
        None => image.reference.clone(),
    }
}

fn map(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn non_empty(map: HashMap<String, String>) -> Option<HashMap<String, String>> {
    (!map.is_empty()).then_some(map)
}

fn list(items: &[String]) -> Option<Vec<String>> {
    (!items.is_empty()).then(|| items.to_vec())
}

pub(super) fn nanoseconds(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(NS_PER_MS)
}

fn limits(limits: &Resources) -> Option<Limit> {
    let amount = |amount: Option<u64>| amount.map(|amount| i64::try_from(amount).unwrap_or(i64::MAX));
    let limit = Limit {
        nano_cpus: amount(limits.nano_cpus),
        memory_bytes: amount(limits.memory_bytes),
        pids: amount(limits.pids_max),
    };
    (limit != Limit::default()).then_some(limit)
}

fn restart(policy: &RestartPolicy) -> TaskSpecRestartPolicy {
    let condition = match policy.condition {
        RestartCondition::None => DockerCondition::NONE,
        RestartCondition::OnFailure => DockerCondition::ON_FAILURE,
        RestartCondition::Any => DockerCondition::ANY,
    };
    TaskSpecRestartPolicy {
        condition: Some(condition),
        delay: Some(nanoseconds(policy.delay_ms)),
        max_attempts: Some(policy.attempts_max.map_or(0, |attempts| i64::try_from(attempts).unwrap_or(i64::MAX))),
        window: policy.window_ms.map(nanoseconds),
    }
}
