//! Accepts a spec of Docker's as one of shoal's.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    Limit, ServiceSpec as DockerSpec, TaskSpec as DockerTaskSpec, TaskSpecContainerSpec, TaskSpecLogDriver,
    TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum as DockerCondition,
};
use shoal_cluster::intent::constraint::ConstraintError;
use shoal_cluster::intent::name::{Name, NameError};
use shoal_cluster::intent::service::{
    ImageRef, Mode, Resources, RestartCondition, RestartPolicy, ServiceSpec, SpecError, TaskSpec,
};
use shoal_runtime::image::{Reference, ReferenceError};

use super::uses::{self, Known};
use super::{NS_PER_MS, container as options, health, mode, place, refuse, rolling};
use crate::executor;

/// Why a spec was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It asks for something that shoal does not have.
    #[error("shoal does not support {option} yet: {field}")]
    Unsupported {
        /// What people know it by, mostly an option of Docker's client.
        option: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field has a value that is impossible.
    #[error("invalid {field}: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// Why.
        reason: String,
    },
    /// It uses something that is not there.
    #[error("{what} {name} not found: create it first")]
    Missing {
        /// What it is.
        what: &'static str,
        /// Its name or id.
        name: String,
    },
    /// The name is none.
    #[error("invalid service name: {0}")]
    Name(#[from] NameError),
    /// The image's name is none.
    #[error("invalid image name: {0}")]
    Image(#[from] ReferenceError),
    /// A constraint or preference is none.
    #[error("invalid placement: {0}")]
    Placement(#[from] ConstraintError),
    /// No container could be made like that.
    #[error("{0}")]
    Container(String),
    /// It exceeds a bound.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

impl AcceptError {
    /// Tells whether Docker would have accepted it.
    pub(in crate::api) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }

    /// Tells whether it uses something that is not there.
    pub(in crate::api) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// Returns the spec as shoal has it. Its image is pinned only if the client has pinned it.
pub(in crate::api) fn accept(known: &Known, spec: DockerSpec) -> Result<ServiceSpec, AcceptError> {
    refuse::service(&spec)?;
    let outline = accept_outline(&spec)?;
    check_rolling(&spec, outline.mode)?;
    let mut template = spec.task_template.unwrap_or_default();
    let networks = uses::networks(known, template.networks.take(), spec.networks)?;
    let endpoint = uses::endpoint(spec.endpoint_spec)?;
    let (update, rollback) = (rolling::update(spec.update_config)?, rolling::rollback(spec.rollback_config)?);
    let task = task(known, outline.mode, template)?;
    let labels = map("Labels", spec.labels)?;
    let spec = ServiceSpec { labels, networks, endpoint, update, rollback, task, ..outline };
    spec.check()?;
    executor::check(&spec.task).map_err(AcceptError::Container)?;
    Ok(spec)
}

/// Returns what placement needs to know of a spec: how many tasks, what they reserve, and where they may run.
///
/// # Errors
/// What of that shoal does not have, or what is impossible.
pub fn accept_outline(spec: &DockerSpec) -> Result<ServiceSpec, AcceptError> {
    let (mode, replicas) = mode::accept(spec.mode.as_ref())?;
    let template = spec.task_template.as_ref();
    let container = template.and_then(|template| template.container_spec.as_ref());
    let image = image(container.and_then(|container| container.image.as_deref()).unwrap_or_default())?;
    let resources = template.and_then(|template| template.resources.as_ref());
    Ok(ServiceSpec {
        mode,
        reserved: place::reserved(resources.and_then(|resources| resources.reservations.as_ref()))?,
        placement: place::placement(template.and_then(|template| template.placement.as_ref()))?,
        ..ServiceSpec::new(Name::new(spec.name.as_deref().unwrap_or_default())?, replicas, TaskSpec::new(image))
    })
}

/// Refuses a configuration of updates of a job: it begins anew instead.
fn check_rolling(spec: &DockerSpec, mode: Mode) -> Result<(), AcceptError> {
    let field = if spec.update_config.is_some() { "UpdateConfig" } else { "RollbackConfig" };
    match mode.is_job() && (spec.update_config.is_some() || spec.rollback_config.is_some()) {
        true => Err(AcceptError::Invalid { field, reason: "a job is not updated, it begins anew".to_owned() }),
        false => Ok(()),
    }
}

fn task(known: &Known, mode: Mode, spec: DockerTaskSpec) -> Result<TaskSpec, AcceptError> {
    let limits = spec.resources.and_then(|resources| resources.limits);
    let container = container(known, spec.container_spec.unwrap_or_default(), spec.log_driver)?;
    Ok(TaskSpec {
        limits: limits.as_ref().map_or(Ok(Resources::default()), resources)?,
        restart: restart(mode, &spec.restart_policy.unwrap_or_default())?,
        force_update: spec.force_update.unwrap_or_default(),
        ..container
    })
}

fn container(
    known: &Known,
    mut spec: TaskSpecContainerSpec,
    log_driver: Option<TaskSpecLogDriver>,
) -> Result<TaskSpec, AcceptError> {
    let container = options::options(known, &mut spec, log_driver)?;
    let image = image(spec.image.as_deref().unwrap_or_default())?;
    let defaults = TaskSpec::new(image);
    let grace = spec.stop_grace_period.map(|ns| milliseconds("ContainerSpec.StopGracePeriod", ns)).transpose()?;
    Ok(TaskSpec {
        command: texts("ContainerSpec.Command", spec.command)?,
        args: texts("ContainerSpec.Args", spec.args)?,
        env: env(spec.env)?,
        labels: map("ContainerSpec.Labels", spec.labels)?,
        workdir: workdir(spec.dir)?,
        user: text("ContainerSpec.User", spec.user)?,
        hostname: hostname(spec.hostname)?,
        read_only: spec.read_only.unwrap_or_default(),
        stop_signal: signal(spec.stop_signal)?,
        stop_grace_ms: grace.unwrap_or(defaults.stop_grace_ms),
        container,
        health: spec.health_check.map(health::accept).transpose()?.flatten(),
        ..defaults
    })
}

/// Splits `name[:tag][@digest]`, and brings the name into Docker's familiar form.
fn image(text: &str) -> Result<ImageRef, AcceptError> {
    if text.is_empty() {
        return Err(SpecError::NoImage.into());
    }
    let reference: Reference = text.parse()?;
    let digest = reference.digest().map(|digest| digest.to_string());
    let name = match (reference.without_digest(), &digest) {
        (Some(tagged), _) => tagged.to_string(),
        (None, Some(_)) => reference.familiar_name(),
        (None, None) => reference.to_string(),
    };
    Ok(ImageRef { reference: name, digest })
}

fn resources(limits: &Limit) -> Result<Resources, AcceptError> {
    let amount = |field, amount: Option<i64>| match u64::try_from(amount.unwrap_or_default()) {
        Ok(0) => Ok(None),
        Ok(amount) => Ok(Some(amount)),
        Err(_) => Err(AcceptError::Invalid { field, reason: "it is negative".to_owned() }),
    };
    Ok(Resources {
        nano_cpus: amount("Resources.Limits.NanoCPUs", limits.nano_cpus)?,
        memory_bytes: amount("Resources.Limits.MemoryBytes", limits.memory_bytes)?,
        pids_max: amount("Resources.Limits.Pids", limits.pids)?,
    })
}

fn restart(mode: Mode, policy: &TaskSpecRestartPolicy) -> Result<RestartPolicy, AcceptError> {
    let defaults = RestartPolicy::default();
    let condition = match policy.condition {
        None | Some(DockerCondition::EMPTY) if mode.is_job() => RestartCondition::OnFailure,
        None | Some(DockerCondition::EMPTY | DockerCondition::ANY) => RestartCondition::Any,
        Some(DockerCondition::ON_FAILURE) => RestartCondition::OnFailure,
        Some(DockerCondition::NONE) => RestartCondition::None,
    };
    let field = "RestartPolicy.MaxAttempts";
    let attempts = u64::try_from(policy.max_attempts.unwrap_or_default())
        .map_err(|_| AcceptError::Invalid { field, reason: "it is negative".to_owned() })?;
    let delay = policy.delay.map(|ns| milliseconds("RestartPolicy.Delay", ns)).transpose()?;
    let window = policy.window.map(|ns| milliseconds("RestartPolicy.Window", ns)).transpose()?;
    Ok(RestartPolicy {
        condition,
        delay_ms: delay.unwrap_or(defaults.delay_ms),
        attempts_max: (attempts > 0).then_some(attempts),
        window_ms: window.filter(|window| *window > 0),
    })
}

/// Returns nanoseconds as milliseconds, rounded up so that a wait never becomes none.
pub(super) fn milliseconds(field: &'static str, ns: i64) -> Result<u64, AcceptError> {
    let ns = u64::try_from(ns).map_err(|_| AcceptError::Invalid { field, reason: "it is negative".to_owned() })?;
    Ok(ns.div_ceil(NS_PER_MS.unsigned_abs()))
}

/// Refuses what no process can be given.
fn check_text(field: &'static str, text: &str) -> Result<(), AcceptError> {
    match text.contains('\0') {
        true => Err(AcceptError::Invalid { field, reason: "it contains a zero byte".to_owned() }),
        false => Ok(()),
    }
}

pub(super) fn text(field: &'static str, text: Option<String>) -> Result<Option<String>, AcceptError> {
    let text = text.filter(|text| !text.is_empty());
    text.iter().try_for_each(|text| check_text(field, text))?;
    Ok(text)
}

pub(super) fn texts(field: &'static str, list: Option<Vec<String>>) -> Result<Vec<String>, AcceptError> {
    let list = list.unwrap_or_default();
    list.iter().try_for_each(|text| check_text(field, text))?;
    Ok(list)
}

pub(super) fn map(
    field: &'static str,
    map: Option<HashMap<String, String>>,
) -> Result<BTreeMap<String, String>, AcceptError> {
    let map: BTreeMap<_, _> = map.unwrap_or_default().into_iter().collect();
    match map.contains_key("") {
        true => Err(AcceptError::Invalid { field, reason: "a label has no key".to_owned() }),
        false => Ok(map),
    }
}

fn env(list: Option<Vec<String>>) -> Result<Vec<String>, AcceptError> {
    let field = "ContainerSpec.Env";
    let list = texts(field, list)?;
    for entry in &list {
        no_template(field, entry)?;
        if entry.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
            let reason = format!("{:?} is not of the form NAME=value", super::super::error::shown(entry));
            return Err(AcceptError::Invalid { field, reason });
        }
    }
    Ok(list)
}

fn workdir(dir: Option<String>) -> Result<Option<String>, AcceptError> {
    let field = "ContainerSpec.Dir";
    let dir = text(field, dir)?;
    match &dir {
        Some(dir) if !dir.starts_with('/') => {
            Err(AcceptError::Invalid { field, reason: "it is not an absolute path".to_owned() })
        }
        _ => Ok(dir),
    }
}

fn hostname(name: Option<String>) -> Result<Option<String>, AcceptError> {
    let field = "ContainerSpec.Hostname";
    let name = text(field, name)?;
    let Some(given) = &name else { return Ok(None) };
    no_template(field, given)?;
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && label.bytes().all(inner)
    };
    // The kernel's bound is 64 bytes.
    if given.len() > 64 || !given.split('.').all(label) {
        return Err(AcceptError::Invalid { field, reason: "it is not a host name".to_owned() });
    }
    Ok(name)
}

/// Docker expands `{{.Task.Slot}}` and the like; taking them literally would surprise.
fn no_template(field: &'static str, text: &str) -> Result<(), AcceptError> {
    match text.contains("{{") {
        true => Err(AcceptError::Unsupported { option: "templates such as {{.Task.Slot}}", field }),
        false => Ok(()),
    }
}

fn signal(name: Option<String>) -> Result<Option<String>, AcceptError> {
    let field = "ContainerSpec.StopSignal";
    let name = text(field, name)?;
    let Some(given) = &name else { return Ok(None) };
    let upper = given.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let known = full.parse::<nix::sys::signal::Signal>().is_ok()
        || given.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
    match known {
        true => Ok(name),
        false => {
            Err(AcceptError::Invalid { field, reason: "it is not a signal, expected one like SIGTERM".to_owned() })
        }
    }
}
