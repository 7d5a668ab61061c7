//! Drain: a task that others stand in for leaves names and balancing some time before it is told to end.
//!
//! Input: which task stops, and what names answer. Output: the command to the executor. Clients that were told the task's
//! address just before go on using it until their answer is too old. See `docs/protocol.md#tasks`.

use super::task::Task;
use super::{Agent, AgentAction, Sources, fence};
use crate::clock::Now;
use crate::id::TaskId;
use crate::io::TaskCommand;
use crate::reports::task::TaskState;

impl Agent {
    /// Stops a task; if others answer under its name, once clients know them.
    pub(super) fn stop(&mut self, now: Now, id: TaskId, sources: Sources<'_>) {
        let running = self.tasks.get(&id).filter(|task| task.report.state == TaskState::Running);
        // A fenced task must have ended when the others' wait is over.
        let waits = |task: &&Task| !(fence::is_fenced(sources, &task.report) && self.fence.is_lost(now.mono));
        let others = running.filter(waits).is_some_and(|task| others_answer(sources, task));
        self.advance(now, id, TaskState::Stopping);
        let command = if others { TaskCommand::Drain(id) } else { TaskCommand::Stop(id) };
        self.actions.push_back(AgentAction::Task(command));
    }
}

/// Tells whether other tasks answer under the name of a task's service.
fn others_answer(sources: Sources<'_>, task: &Task) -> bool {
    let service = sources.intent.service(&task.report.service);
    let names = service.and_then(|service| sources.plan.names.services.get(service.spec.name.folded()));
    names.is_some_and(|names| names.iter().any(|addresses| *addresses != task.report.addresses))
}
