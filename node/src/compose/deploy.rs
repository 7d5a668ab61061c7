//! The section `deploy` of a service: how many, where, with what, and how it changes.

use std::collections::HashMap;

use bollard::models::{
    EndpointSpecModeEnum, Limit, ResourceObject, ServiceSpecMode, ServiceSpecModeReplicated,
    ServiceSpecModeReplicatedJob, ServiceSpecRollbackConfig,
    ServiceSpecRollbackConfigFailureActionEnum as OnFailedRollback,
    ServiceSpecRollbackConfigOrderEnum as RollbackOrder, ServiceSpecUpdateConfig,
    ServiceSpecUpdateConfigFailureActionEnum as OnFailedUpdate, ServiceSpecUpdateConfigOrderEnum as UpdateOrder,
    TaskSpecPlacement, TaskSpecPlacementPreferences, TaskSpecPlacementSpread, TaskSpecRestartPolicy,
    TaskSpecRestartPolicyConditionEnum as Condition,
};

use super::tree::{At, ComposeError, wrong};
use crate::cli::words::parse_cpus;

/// What the section says; absent is Docker's default.
#[derive(Debug, Default)]
pub(super) struct Deploy {
    mode: Option<String>,
    /// `deploy.replicas`.
    pub(super) replicas: Option<i64>,
    /// Labels of the service.
    pub(super) labels: HashMap<String, String>,
    /// How it is updated.
    pub(super) update: Option<ServiceSpecUpdateConfig>,
    /// How an update is taken back.
    pub(super) rollback: Option<ServiceSpecRollbackConfig>,
    /// What a task may use at most.
    pub(super) limits: Option<Limit>,
    /// What a task reserves.
    pub(super) reservations: Option<ResourceObject>,
    /// When a task that ended is followed by another.
    pub(super) restart: Option<TaskSpecRestartPolicy>,
    /// Where tasks run.
    pub(super) placement: Option<TaskSpecPlacement>,
    /// How its name is answered.
    pub(super) endpoint_mode: Option<EndpointSpecModeEnum>,
}

/// One of the two configs of changes, which have the same keys.
#[derive(Default)]
struct Change {
    parallelism: Option<i64>,
    delay: Option<i64>,
    failure_action: Option<String>,
    monitor: Option<i64>,
    max_failure_ratio: Option<f64>,
    order: Option<String>,
}

/// Reads the section.
pub(super) fn read(at: &At<'_>) -> Result<Deploy, ComposeError> {
    let mut deploy = Deploy::default();
    for (key, at) in at.entries()? {
        match key {
            "mode" => deploy.mode = Some(one_of(&at, &["replicated", "global", "replicated-job", "global-job"])?),
            "replicas" => deploy.replicas = Some(at.count()?),
            "labels" => deploy.labels = at.labels()?,
            "update_config" => deploy.update = Some(update(&at)?),
            "rollback_config" => deploy.rollback = Some(rollback(&at)?),
            "resources" => resources(&at, &mut deploy)?,
            "restart_policy" => deploy.restart = Some(restart(&at)?),
            "placement" => deploy.placement = Some(placement(&at)?),
            "endpoint_mode" => {
                deploy.endpoint_mode = Some(match one_of(&at, &["vip", "dnsrr"])?.as_str() {
                    "vip" => EndpointSpecModeEnum::VIP,
                    _ => EndpointSpecModeEnum::DNSRR,
                });
            }
            _ => return Err(at.unknown()),
        }
    }
    if deploy.replicas.is_some() && deploy.mode.as_deref().is_some_and(|mode| mode.starts_with("global")) {
        return Err(wrong(at, "a global service has one task on each node: remove `replicas`"));
    }
    Ok(deploy)
}

impl Deploy {
    /// Returns the mode as Docker's API has it, with `replicas` where the section says nothing of them.
    pub(super) fn mode(&self, replicas: Option<i64>) -> ServiceSpecMode {
        let replicas = self.replicas.or(replicas);
        let mut mode = ServiceSpecMode::default();
        match self.mode.as_deref() {
            Some("global") => mode.global = Some(HashMap::new()),
            Some("global-job") => mode.global_job = Some(HashMap::new()),
            Some("replicated-job") => {
                let job = ServiceSpecModeReplicatedJob { max_concurrent: replicas, total_completions: replicas };
                mode.replicated_job = Some(job);
            }
            Some(_) | None => {
                mode.replicated = Some(ServiceSpecModeReplicated { replicas: Some(replicas.unwrap_or(1)) })
            }
        }
        mode
    }
}

fn one_of(at: &At<'_>, words: &[&str]) -> Result<String, ComposeError> {
    let word = at.text()?;
    if words.contains(&word.as_str()) {
        Ok(word)
    } else {
        Err(wrong(at, format!("{word:?} is none of {}", words.join(", "))))
    }
}

fn change(at: &At<'_>, actions: &[&str]) -> Result<Change, ComposeError> {
    let mut change = Change::default();
    for (key, at) in at.entries()? {
        match key {
            "parallelism" => change.parallelism = Some(at.count()?),
            "delay" => change.delay = Some(at.nanoseconds()?),
            "failure_action" => change.failure_action = Some(one_of(&at, actions)?),
            "monitor" => change.monitor = Some(at.nanoseconds()?),
            "max_failure_ratio" => change.max_failure_ratio = Some(at.fraction()?),
            "order" => change.order = Some(one_of(&at, &["stop-first", "start-first"])?),
            _ => return Err(at.unknown()),
        }
    }
    Ok(change)
}

fn update(at: &At<'_>) -> Result<ServiceSpecUpdateConfig, ComposeError> {
    let change = change(at, &["pause", "continue", "rollback"])?;
    Ok(ServiceSpecUpdateConfig {
        parallelism: change.parallelism.or(Some(1)),
        delay: change.delay,
        failure_action: change.failure_action.map(|action| match action.as_str() {
            "continue" => OnFailedUpdate::CONTINUE,
            "rollback" => OnFailedUpdate::ROLLBACK,
            _ => OnFailedUpdate::PAUSE,
        }),
        monitor: change.monitor,
        max_failure_ratio: change.max_failure_ratio,
        order: change
            .order
            .map(|order| if order == "start-first" { UpdateOrder::START_FIRST } else { UpdateOrder::STOP_FIRST }),
    })
}

fn rollback(at: &At<'_>) -> Result<ServiceSpecRollbackConfig, ComposeError> {
    let change = change(at, &["pause", "continue"])?;
    Ok(ServiceSpecRollbackConfig {
        parallelism: change.parallelism.or(Some(1)),
        delay: change.delay,
        failure_action: change.failure_action.map(|action| match action.as_str() {
            "continue" => OnFailedRollback::CONTINUE,
            _ => OnFailedRollback::PAUSE,
        }),
        monitor: change.monitor,
        max_failure_ratio: change.max_failure_ratio,
        order: change
            .order
            .map(|order| if order == "start-first" { RollbackOrder::START_FIRST } else { RollbackOrder::STOP_FIRST }),
    })
}

fn resources(at: &At<'_>, deploy: &mut Deploy) -> Result<(), ComposeError> {
    for (key, at) in at.entries()? {
        let (mut cpus, mut memory, mut pids) = (None, None, None);
        for (key, at) in at.entries()? {
            match key {
                "cpus" => cpus = Some(parse_cpus(&at.text()?).map_err(|reason| wrong(&at, reason))?),
                "memory" => memory = Some(at.bytes()?),
                "pids" => pids = Some(at.count()?),
                _ => return Err(at.unknown()),
            }
        }
        match key {
            "limits" => deploy.limits = Some(Limit { nano_cpus: cpus, memory_bytes: memory, pids }),
            "reservations" if pids.is_some() => return Err(wrong(&at, "processes cannot be reserved, only limited")),
            "reservations" => {
                let reserved = ResourceObject { nano_cpus: cpus, memory_bytes: memory, generic_resources: None };
                deploy.reservations = Some(reserved);
            }
            _ => return Err(at.unknown()),
        }
    }
    Ok(())
}

fn restart(at: &At<'_>) -> Result<TaskSpecRestartPolicy, ComposeError> {
    let mut restart = TaskSpecRestartPolicy::default();
    for (key, at) in at.entries()? {
        match key {
            "condition" => {
                restart.condition = Some(match one_of(&at, &["none", "on-failure", "any"])?.as_str() {
                    "none" => Condition::NONE,
                    "on-failure" => Condition::ON_FAILURE,
                    _ => Condition::ANY,
                });
            }
            "delay" => restart.delay = Some(at.nanoseconds()?),
            "max_attempts" => restart.max_attempts = Some(at.count()?),
            "window" => restart.window = Some(at.nanoseconds()?),
            _ => return Err(at.unknown()),
        }
    }
    Ok(restart)
}

fn placement(at: &At<'_>) -> Result<TaskSpecPlacement, ComposeError> {
    let mut placement = TaskSpecPlacement::default();
    for (key, at) in at.entries()? {
        match key {
            "constraints" => placement.constraints = Some(at.texts()?),
            "preferences" => {
                let preferences = at.items()?.iter().map(preference).collect::<Result<_, _>>()?;
                placement.preferences = Some(preferences);
            }
            "max_replicas_per_node" => placement.max_replicas = Some(at.count()?),
            _ => return Err(at.unknown()),
        }
    }
    Ok(placement)
}

fn preference(at: &At<'_>) -> Result<TaskSpecPlacementPreferences, ComposeError> {
    let mut spread = None;
    for (key, at) in at.entries()? {
        match key {
            "spread" => spread = Some(TaskSpecPlacementSpread { spread_descriptor: Some(at.text()?) }),
            _ => return Err(at.unknown()),
        }
    }
    Ok(TaskSpecPlacementPreferences { spread })
}
