//! Jobs: their tasks end, and what they did is kept as intent.
//!
//! Input: tasks here that ended with exit code 0, what is known to be done, what runs elsewhere. Output: completions to
//! write. A job's task is never moved while it runs: nobody starts it anew elsewhere as long as a node that is up says that
//! it runs. See `docs/protocol.md#jobs`.

use super::{Agent, AgentAction, Slot, Sources};
use crate::intent::service::Service;
use crate::mutation::{self, Mutation};
use crate::reports::task::TaskState;

impl Agent {
    /// Writes down what jobs have done here since, and forgets what is written of those that are no more.
    pub(super) fn note_completions(&mut self, sources: Sources<'_>) {
        let complete = self.tasks.values().filter(|task| task.report.state == TaskState::Complete);
        for report in complete.map(|task| &task.report) {
            let service = sources.intent.service(&report.service);
            let Some(job) = service.filter(|service| is_of(service, report.slot, report.revision)) else { continue };
            if mutation::on(Mutation::CompletionsForgotten) {
                break;
            }
            if !sources.intent.is_completed(job, report.slot) {
                self.actions.push_back(AgentAction::Complete(job.id, job.revision, report.slot));
            }
        }
        let outlived = sources.intent.outlived();
        self.actions.extend(outlived.into_iter().map(AgentAction::ForgetCompletions));
    }

    /// Tells whether a slot of a job must not be started now: it is done, though plan and intent may not know it yet, or a node
    /// that is up says that it runs it.
    pub(super) fn holds_job(&self, job: &Service, slot: Slot, sources: Sources<'_>) -> bool {
        let mut own = self.tasks.values().map(|task| &task.report).filter(|task| (task.service, task.slot) == slot);
        let done_here = own.any(|task| task.state == TaskState::Complete && task.revision == job.revision);
        done_here || sources.intent.is_completed(job, slot.1) || self.runs_elsewhere(job, slot, sources)
    }

    fn runs_elsewhere(&self, job: &Service, slot: Slot, sources: Sources<'_>) -> bool {
        let others = sources.reports.iter().filter(|(node, _)| **node != self.own && sources.membership.is_up(node));
        let mut tasks = others.flat_map(|(_, report)| report.tasks.values());
        tasks.any(|task| {
            (task.service, task.slot) == slot && task.revision == job.revision && task.state == TaskState::Running
        })
    }
}

/// Tells whether a task of this slot and revision is one of a job's present tasks.
fn is_of(service: &Service, slot: u32, revision: u64) -> bool {
    service.spec.mode.is_job() && service.revision == revision && service.spec.has_slot(slot)
}
