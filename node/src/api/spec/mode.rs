//! Modes: how many tasks a service has, to and from Docker's.

use std::collections::HashMap;

use bollard::models::{ServiceSpecMode, ServiceSpecModeReplicated, ServiceSpecModeReplicatedJob as DockerJob};
use shoal_cluster::intent::service::{Mode, ServiceSpec};
use shoal_cluster::limits::REPLICAS_MAX;

use super::accept::AcceptError;

/// Returns the mode and, if it is not global, how many tasks or completions there are to be.
pub(super) fn accept(mode: Option<&ServiceSpecMode>) -> Result<(Mode, u32), AcceptError> {
    let Some(mode) = mode else { return Ok((Mode::Replicated, 1)) };
    let named =
        [mode.replicated.is_some(), mode.global.is_some(), mode.replicated_job.is_some(), mode.global_job.is_some()];
    if named.into_iter().filter(|named| *named).count() > 1 {
        return Err(AcceptError::Invalid { field: "Mode", reason: "it names several modes, expected one".to_owned() });
    }
    if let Some(job) = &mode.replicated_job {
        let concurrent = count("Mode.ReplicatedJob.MaxConcurrent", job.max_concurrent.unwrap_or(1))?;
        let total =
            job.total_completions.map(|total| count("Mode.ReplicatedJob.TotalCompletions", total)).transpose()?;
        return Ok((Mode::ReplicatedJob { concurrent }, total.unwrap_or(concurrent)));
    }
    if mode.global.is_some() || mode.global_job.is_some() {
        return Ok((if mode.global.is_some() { Mode::Global } else { Mode::GlobalJob }, 1));
    }
    let replicas = mode.replicated.as_ref().and_then(|replicated| replicated.replicas);
    Ok((Mode::Replicated, count("Mode.Replicated.Replicas", replicas.unwrap_or(1))?))
}

fn count(field: &'static str, count: i64) -> Result<u32, AcceptError> {
    let in_bounds = u32::try_from(count).ok().filter(|count| *count <= REPLICAS_MAX);
    in_bounds.ok_or_else(|| AcceptError::Invalid {
        field,
        reason: format!("{count} replicas, expected 0 to {REPLICAS_MAX}"),
    })
}

/// Shows the mode as Docker has it.
pub(super) fn show(spec: &ServiceSpec) -> ServiceSpecMode {
    let mut mode = ServiceSpecMode::default();
    let replicas = Some(i64::from(spec.replicas));
    match spec.mode {
        Mode::Replicated => mode.replicated = Some(ServiceSpecModeReplicated { replicas }),
        Mode::Global => mode.global = Some(HashMap::new()),
        Mode::ReplicatedJob { concurrent } => {
            let max_concurrent = Some(i64::from(concurrent));
            mode.replicated_job = Some(DockerJob { max_concurrent, total_completions: replicas });
        }
        Mode::GlobalJob => mode.global_job = Some(HashMap::new()),
    }
    mode
}

/// Returns the word that Docker's filters have for it.
pub(in crate::api) fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Replicated => "replicated",
        Mode::Global => "global",
        Mode::ReplicatedJob { .. } => "replicated-job",
        Mode::GlobalJob => "global-job",
    }
}
