//! Modes: how many tasks a service has, as flags and words.

use std::collections::HashMap;

use bollard::models::{Service, ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicatedJob};
use clap::{Args, ValueEnum};

/// How many tasks a service has.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ModeArgs {
    /// Keep this many tasks running; of a job, run so many to their end.
    #[arg(long, default_value_t = 1)]
    replicas: u32,
    /// Run so many tasks, or one on every node that may run it; a job's tasks end when they have done their work.
    #[arg(long, value_enum, default_value_t = Mode::Replicated)]
    mode: Mode,
    /// Run at most so many tasks of a replicated job at once [default: all].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_concurrent: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// As many as --replicas says.
    Replicated,
    /// One on every node that may run it.
    Global,
    /// As many as --replicas says, each to its end.
    ReplicatedJob,
    /// One on every node that may run it, to its end.
    GlobalJob,
}

impl ModeArgs {
    /// Says in a spec what the mode is.
    pub(super) fn apply(&self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        let mut mode = ServiceSpecMode::default();
        match self.mode {
            Mode::Replicated => mode.replicated = Some(Default::default()),
            Mode::Global => mode.global = Some(HashMap::new()),
            Mode::GlobalJob => mode.global_job = Some(HashMap::new()),
            Mode::ReplicatedJob => {
                let max_concurrent = Some(i64::from(self.replicas.max(1)));
                mode.replicated_job = Some(ServiceSpecModeReplicatedJob { max_concurrent, total_completions: None });
            }
        }
        spec.mode = Some(mode);
        if matches!(self.mode, Mode::Replicated | Mode::ReplicatedJob) {
            set_replicas(spec, self.replicas)?;
        }
        self.max_concurrent.map_or(Ok(()), |concurrent| set_concurrent(spec, concurrent))
    }
}

/// Tells whether a spec is of a job.
pub(super) fn is_job(spec: &ServiceSpec) -> bool {
    spec.mode.as_ref().is_some_and(|mode| mode.replicated_job.is_some() || mode.global_job.is_some())
}

/// Says how many tasks a service is to have, or a job to run to their end.
pub(super) fn set_replicas(spec: &mut ServiceSpec, replicas: u32) -> anyhow::Result<()> {
    let mode = spec.mode.get_or_insert_default();
    anyhow::ensure!(
        mode.global.is_none() && mode.global_job.is_none(),
        "the service is global: it runs once on every node, and has no number of replicas"
    );
    match &mut mode.replicated_job {
        Some(job) => job.total_completions = Some(i64::from(replicas)),
        None => mode.replicated.get_or_insert_default().replicas = Some(i64::from(replicas)),
    }
    Ok(())
}

/// Says how many tasks of a job may run at once.
pub(super) fn set_concurrent(spec: &mut ServiceSpec, concurrent: u32) -> anyhow::Result<()> {
    let job = spec.mode.as_mut().and_then(|mode| mode.replicated_job.as_mut());
    let job = job.ok_or_else(|| anyhow::anyhow!("--max-concurrent is for replicated jobs (--mode replicated-job)"))?;
    job.max_concurrent = Some(i64::from(concurrent));
    Ok(())
}

/// Returns the word for a service's mode.
pub(super) fn word(service: &Service) -> &'static str {
    let mode = service.spec.as_ref().and_then(|spec| spec.mode.clone()).unwrap_or_default();
    match mode {
        ServiceSpecMode { global: Some(_), .. } => "global",
        ServiceSpecMode { replicated_job: Some(_), .. } => "replicated-job",
        ServiceSpecMode { global_job: Some(_), .. } => "global-job",
        ServiceSpecMode { .. } => "replicated",
    }
}

/// Returns how many tasks of a service run, of how many; of a job also how many have done their work, of how many.
pub(super) fn counts(service: &Service) -> String {
    let status = service.service_status.clone().unwrap_or_default();
    let (running, desired) = (status.running_tasks.unwrap_or_default(), status.desired_tasks.unwrap_or_default());
    match job_counts(service) {
        Some((completed, total)) => format!("{running}/{desired} ({completed}/{total} completed)"),
        None => format!("{running}/{desired}"),
    }
}

/// Returns how many tasks of a job have done their work, of how many; none of what is no job.
pub(super) fn job_counts(service: &Service) -> Option<(u64, u64)> {
    let spec = service.spec.as_ref().filter(|spec| is_job(spec))?;
    let status = service.service_status.as_ref()?;
    let job = spec.mode.as_ref().and_then(|mode| mode.replicated_job.as_ref());
    let total = match job {
        Some(job) => job.total_completions.and_then(|total| u64::try_from(total).ok()).unwrap_or_default(),
        None => status.desired_tasks.unwrap_or_default(),
    };
    Some((status.completed_tasks.unwrap_or_default(), total))
}
