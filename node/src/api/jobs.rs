//! Jobs as Docker shows them: how many tasks have done their work, and which run of the job it is.

use bollard::models::{ObjectVersion, ServiceJobStatus};
use shoal_cluster::intent::service::Service;
use shoal_cluster::plan::placement::Job;
use shoal_cluster::view::Views;

use super::time::rfc3339;

/// Returns how many slots of a job have done their work; none of what is no job.
pub(super) fn completed(views: &Views, service: &Service) -> u64 {
    let done = views.completed.get(&service.id).map_or(0, |slots| match service.spec.mode.is_global() {
        true => slots.count(),
        false => slots.below(service.spec.replicas),
    });
    u64::from(done)
}

/// Returns which run of a job this is, and since when.
pub(super) fn status(service: &Service) -> Option<ServiceJobStatus> {
    let started_ms = service.rollout.map_or(service.created_ms, |rollout| rollout.started_ms);
    service.spec.mode.is_job().then(|| ServiceJobStatus {
        job_iteration: Some(iteration(service.revision)),
        last_execution: Some(rfc3339(started_ms)),
    })
}

/// Returns the number by which clients tell the runs of a job apart; they compare it only.
pub(super) fn iteration(revision: u64) -> ObjectVersion {
    const BITS: u32 = 31;
    ObjectVersion { index: Some(revision >> (u64::BITS - BITS)) }
}

/// Returns the numbers of the slots of a replicated job that are to run now.
pub(super) fn open(views: &Views, service: &Service) -> Vec<u32> {
    let (done, lanes) = (views.completed.get(&service.id).cloned().unwrap_or_default(), service.spec.lanes());
    let job = Job { slots: service.spec.replicas, done };
    (1..=lanes).filter_map(|lane| job.turn(lanes, lane)).collect()
}
