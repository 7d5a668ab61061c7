//! The agent: this node's own tasks, from what the plan wants of it.
//!
//! Input: the plan, what became of containers, time. Output: commands to the executor, this node's report, claims of an
//! address block. A task goes through the states of [`TaskState`], only forward:
//!
//! | state | entered when | ended by |
//! |---|---|---|
//! | preparing | the agent starts it: its slot is assigned here and has no live task here | the executor's word |
//! | starting, running | the executor says so; running also when it outlived a restart of the node | its end, or the agent's stop |
//! | stopping | the agent stops it: its service, slot, address or revision is gone, or its slot runs elsewhere; or its health check failed | the executor's word |
//! | complete, failed | it ended by itself | the slot's history is longer than it may be, or the slot is gone |
//! | shutdown | it ended because the agent stopped it | likewise |
//!
//! Make before break: a task that runs is kept until the node that the plan now names reports one that runs in the same
//! slot. A new revision replaces tasks slot by slot as far as the front of its rollout has come ([`rolling`]), stop-first or
//! start-first. Timers are a slot's restart delay ([`restart`]) and the time after which a moved task is stable. Nothing is
//! started before the executor has said which containers outlived the last run. See
//! `docs/protocol.md#tasks`.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use crate::clock::{Instant, Now};
use crate::id::{Leg, NodeId, ServiceId, TaskId};
use crate::intent::Intent;
use crate::intent::service::container::VolumeName;
use crate::io::{Event, TaskCommand, TaskEvent, TaskOrder};
use crate::membership::Membership;
use crate::plan::Plan;
use crate::reports::Reports;
use crate::reports::item::Failures;
use crate::reports::task::{TaskReport, TaskState};

mod block;
mod drain;
mod fence;
mod jobs;
mod reconcile;
mod restart;
mod rolling;
mod room;
mod task;
#[cfg(test)]
mod tests;

use block::Hosts;
use fence::Fence;
use restart::Restart;
use rolling::Goals;
use task::Task;

/// One replica of one service.
type Slot = (ServiceId, u32);

/// What the agent wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "orders are the most of what goes by, and a box would not make them smaller"
)]
pub enum AgentAction {
    /// Do something with a container.
    Task(TaskCommand),
    /// Put this task into this node's report, in place of its older state.
    Report(TaskReport),
    /// Take this task out of this node's report.
    Retract(TaskId),
    /// Put the slots of a service that failed in a rollout into this node's report, or take them out.
    ReportFailures(ServiceId, Leg, Option<Failures>),
    /// Claim the IPv4 block with this number for this node.
    ClaimBlock(u16),
    /// Ask this node whether it stands by what it reported before it came up: a task here ends once it does.
    Await(NodeId),
    /// Add that a slot of a job, in this revision, did its work here.
    Complete(ServiceId, u64, u32),
    /// Forget what this node said of a job, which is no more.
    ForgetCompletions(ServiceId),
    /// Claim this volume for this node: the task that is started next makes it.
    ClaimVolume(VolumeName),
    /// Tell operators.
    Notify(Event),
}

/// This node's tasks.
#[derive(Clone, Debug)]
pub struct Agent {
    own: NodeId,
    epoch: u64,
    counter: u64,
    /// Whether the executor has said which containers outlived the last run.
    recovered: bool,
    /// All that are reported, final ones included.
    tasks: BTreeMap<TaskId, Task>,
    /// The slots that are assigned here.
    slots: BTreeMap<Slot, Restart>,
    /// What failed here in rollouts.
    failures: BTreeMap<(ServiceId, Leg), Failures>,
    /// When a task that moved will have run for long enough.
    wake_at: Option<Instant>,
    hosts: Hosts,
    /// This node's IPv4 block at the last reconciliation.
    claimed: Option<u16>,
    /// The nodes whose word tasks here wait for.
    awaited: BTreeSet<NodeId>,
    fence: Fence,
    actions: VecDeque<AgentAction>,
}

/// What the agent reads.
#[derive(Clone, Copy)]
struct Sources<'a> {
    plan: &'a Plan,
    intent: &'a Intent,
    reports: &'a Reports,
    membership: &'a Membership,
}

impl Agent {
    /// Makes the agent of a node in its `epoch`-th run; no two runs may share one, or task ids would repeat.
    pub fn new(own: NodeId, epoch: u64) -> Self {
        Self {
            own,
            epoch,
            counter: 0,
            recovered: false,
            tasks: BTreeMap::new(),
            slots: BTreeMap::new(),
            failures: BTreeMap::new(),
            wake_at: None,
            hosts: Hosts::default(),
            claimed: None,
            awaited: BTreeSet::new(),
            fence: Fence::default(),
            actions: VecDeque::new(),
        }
    }

    /// Takes in what became of a task.
    pub fn handle(&mut self, now: Now, event: TaskEvent) {
        match event {
            TaskEvent::Recovered { running, starting } => {
                self.recovered = true;
                for (orders, state) in [(running, TaskState::Running), (starting, TaskState::Starting)] {
                    for order in orders {
                        self.adopt(now, order, state);
                    }
                }
            }
            TaskEvent::Starting(id) => self.advance(now, id, TaskState::Starting),
            TaskEvent::Running(id) => self.advance(now, id, TaskState::Running),
            TaskEvent::Unhealthy(id) => self.give_up(now, id),
            TaskEvent::Ended { id, exit_code, error } => self.ended(now, id, exit_code, error),
        }
    }

    /// Compares what runs here with what the plan wants, and makes the next steps towards it.
    pub fn reconcile(&mut self, now: Now, plan: &Plan, intent: &Intent, reports: &Reports, membership: &Membership) {
        if !self.recovered {
            return;
        }
        let sources = Sources { plan, intent, reports, membership };
        let block = self.settle_block(sources);
        self.await_successors(sources);
        self.note_completions(sources);
        let mut goals = Goals::new(sources);
        self.watch_moved(now, sources, &mut goals);
        self.watch_fence(now, sources);
        self.stop_unwanted(now, sources, block, &mut goals);
        self.replace_outdated(now, sources, &mut goals);
        self.start_missing(now, sources, block, &mut goals);
        self.forget(sources);
        self.forget_failures(sources);
    }

    /// Ends the restart delays that are over; [`Self::reconcile`] then starts what waited.
    pub fn timeout(&mut self, now: Now) {
        for restart in self.slots.values_mut() {
            restart.wake(now.mono);
        }
    }

    /// Returns what to do next.
    pub fn poll(&mut self) -> Option<AgentAction> {
        self.actions.pop_front()
    }

    /// Returns the nodes whose word tasks here wait for: see [`AgentAction::Await`].
    pub fn awaited(&self) -> impl Iterator<Item = &NodeId> {
        self.awaited.iter()
    }

    /// Returns when [`Self::timeout`] is due, if anything waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.slots.values().filter_map(Restart::deadline).chain(self.wake_at).min()
    }

    /// Takes over a container that outlived the last run. Whether it is wanted is found by the reconciliation.
    fn adopt(&mut self, now: Now, order: TaskOrder, state: TaskState) {
        if !self.tasks.contains_key(&order.id) {
            self.counter += 1;
            let id = order.id;
            let task = Task::new(&order, self.counter, now.wall_ms);
            self.tasks.insert(id, task);
            self.advance(now, id, state);
        }
    }

    /// Takes a task that does not work out of names and balancing while the executor ends it.
    fn give_up(&mut self, now: Now, id: TaskId) {
        if let Some(task) = self.tasks.get_mut(&id)
            && task.give_up(now)
        {
            self.actions.push_back(AgentAction::Report(task.report.clone()));
        }
    }

    /// Moves a task forward and reports it. A container that the agent does not know is not wanted.
    fn advance(&mut self, now: Now, id: TaskId, state: TaskState) {
        let Some(task) = self.tasks.get_mut(&id) else {
            self.actions.push_back(AgentAction::Task(TaskCommand::Stop(id)));
            return;
        };
        if task.advance(now, state) {
            self.actions.push_back(AgentAction::Report(task.report.clone()));
        }
    }

    /// Takes in that nothing of a task runs any more, and decides when its slot may start another.
    fn ended(&mut self, now: Now, id: TaskId, exit_code: Option<i32>, error: String) {
        let Some(task) = self.tasks.get_mut(&id) else {
            self.actions.push_back(AgentAction::Task(TaskCommand::Remove(id)));
            return;
        };
        if !task.end(now, exit_code, error) {
            return;
        }
        let failed = match task.report.state {
            TaskState::Failed => true,
            TaskState::Complete => false,
            TaskState::Accepted
            | TaskState::Preparing
            | TaskState::Starting
            | TaskState::Running
            | TaskState::Stopping
            | TaskState::Shutdown => return self.actions.push_back(AgentAction::Report(task.report.clone())),
        };
        let ran = task.ran(now.mono);
        let slot = self.slots.entry(task.slot()).or_insert_with(|| Restart::new(task.report.revision));
        // The older of two tasks in one slot says nothing of when the newer revision may start.
        let present = slot.revision() == task.report.revision;
        let delay = if present { slot.ended(now.mono, &task.restart, failed, ran) } else { None };
        task.report.over = present && delay.is_none();
        let task = task.clone();
        self.actions.push_back(AgentAction::Report(task.report.clone()));
        if failed || delay.is_some() {
            self.note_failure(&task, ran, delay.is_none());
        }
        if failed {
            let retry_ms = delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
            self.actions.push_back(AgentAction::Notify(Event::TaskFailed { id, retry_ms }));
        }
    }

    /// Returns the tasks of which something may still run, by slot.
    fn live(&self) -> BTreeMap<Slot, Vec<TaskId>> {
        let mut live: BTreeMap<Slot, Vec<TaskId>> = BTreeMap::new();
        for (id, task) in self.tasks.iter().filter(|(_, task)| !task.report.state.is_final()) {
            live.entry(task.slot()).or_default().push(*id);
        }
        live
    }
}
