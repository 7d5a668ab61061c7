//! Promise 4: every slot of a job does its work once it can, and none counts as done that never was.
//!
//! In a healed world whatever can run has run: no slot of a job has a node and waits. That a slot does its work twice cannot be
//! helped where two sides of a split both run it, or a machine loses its power before it tells; it is counted, not held against
//! anyone. What must not be: that a node starts a slot which it knows to be done.

use std::collections::BTreeMap;

use shoal_cluster::{Cluster, ServiceId, TaskOrder};

use crate::workload;
use crate::world::World;

/// The tasks of jobs that really ended with exit code 0, by slot and revision.
#[derive(Debug, Default)]
pub(crate) struct Done(BTreeMap<(ServiceId, u64, u32), u32>);

impl Done {
    /// A task of a job has done its work; tells whether another had done the same.
    pub(crate) fn add(&mut self, order: &TaskOrder) -> bool {
        let times = self.0.entry((order.service, order.revision, order.slot)).or_default();
        *times += 1;
        *times > 1
    }
}

/// A node starts a task: not one whose work it knows to be done.
pub(super) fn starts(core: &Cluster, order: &TaskOrder) -> Result<(), String> {
    let service = core.intent().service(&order.service).filter(|service| service.revision == order.revision);
    match service.is_some_and(|service| core.intent().is_completed(service, order.slot)) {
        true => Err(format!("starts slot {} of {}, which is done", order.slot, order.service_name)),
        false => Ok(()),
    }
}

/// Compares what counts as done with what was, and looks for slots that wait.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let Some((_, core)) = world.up().next() else { return Err("no node is up".to_owned()) };
    for job in core.intent().jobs() {
        let (name, done) = (&job.spec.name, core.intent().completed(job));
        let really = |slot: u32| world.watch.done.0.contains_key(&(job.id, job.revision, slot));
        let counted = if job.spec.mode.is_global() { Vec::new() } else { (0..job.spec.replicas).collect() };
        if let Some(slot) = counted.into_iter().find(|slot| done.contains(*slot) && !really(*slot)) {
            return Err(format!("slot {slot} of {name} counts as done and never was"));
        }
        let mut waiting = core.plan().assignments.slots(&job.id);
        if let Some((slot, _)) = waiting.next().filter(|_| !workload::is_flawed(core, &job.spec.task)) {
            return Err(format!("slot {slot} of {name} has a node and is not done"));
        }
    }
    Ok(())
}
