//! Reconciling: what to stop, to replace, to start and to forget, from the difference of what runs and what is wanted.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::restart::Restart;
use super::rolling::Goals;
use super::task::{Task, Trial};
use super::{Agent, AgentAction, Slot, Sources, block};
use crate::clock::Now;
use crate::id::{NodeId, TaskId};
use crate::intent::node::Availability;
use crate::intent::service::Service;
use crate::io::{Event, TaskCommand, TaskOrder};
use crate::limits::{TASK_HISTORY_PER_SLOT, TASKS_PER_NODE_MAX};
use crate::mutation::{self, Mutation};
use crate::plan::addresses::{Addresses, Block};
use crate::plan::rollout::Aim;
use crate::reports::task::{TaskReport, TaskState};

/// What is to become of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Stop,
}

impl Agent {
    /// Returns this node's block if it has one with IPv4; claims one if not, also after another node won it.
    pub(super) fn settle_block(&mut self, sources: Sources<'_>) -> Option<Block> {
        let own = sources.intent.block_of(&self.own);
        if let Some(lost) = self.claimed.filter(|_| self.claimed != own)
            && let Some((_, to)) = sources.intent.blocks().find(|(number, node)| *number == lost && *node != self.own)
        {
            self.actions.push_back(AgentAction::Notify(Event::BlockLost { to }));
        }
        self.claimed = own;
        if own.is_none()
            && let Some(number) = block::choose(&self.own, &sources.intent.blocks().map(|(number, _)| number).collect())
        {
            self.actions.push_back(AgentAction::ClaimBlock(number));
        }
        sources.plan.blocks.get(&self.own).copied().filter(|block| block.v4.is_some())
    }

    /// Finds the nodes that should run what runs here, and of which it is not known whether they still run what they
    /// reported before they came up.
    pub(super) fn await_successors(&mut self, sources: Sources<'_>) {
        let live = self.tasks.values().filter(|task| task.report.state == TaskState::Running);
        let nodes =
            live.filter_map(|task| sources.plan.assignments.get(&task.slot())).filter(|node| **node != self.own);
        let doubted = |node: &&NodeId| sources.membership.is_up(node) && !sources.reports.is_confirmed(node);
        let awaited: BTreeSet<NodeId> = nodes.filter(doubted).chain(self.silent(sources)).copied().collect();
        let fresh = awaited.difference(&self.awaited).copied();
        self.actions.extend(fresh.map(AgentAction::Await));
        self.awaited = awaited;
    }

    /// Stops live tasks that are not wanted, and all but the best of several in one slot. Beside a task of the revision
    /// that its slot is to run an older one runs on until the newer has run for long enough.
    pub(super) fn stop_unwanted<'a>(
        &mut self,
        now: Now,
        sources: Sources<'a>,
        block: Option<Block>,
        goals: &mut Goals<'a>,
    ) {
        for (slot, ids) in self.live() {
            let service = sources.intent.service(&slot.0);
            let aim = service.map(|service| {
                let before = self.revision_of(&slot, goals.of(service).target.revision);
                goals.aim(service, slot.1, before).revision
            });
            let mut kept: Vec<&Task> = Vec::new();
            let mut unwanted: Vec<TaskId> = Vec::new();
            for task in ids.iter().map(|id| &self.tasks[id]).filter(|task| task.report.state != TaskState::Stopping) {
                match self.judge(now, task, sources, block, goals) {
                    Verdict::Keep => kept.push(task),
                    Verdict::Stop => unwanted.push(task.report.id),
                }
            }
            kept.sort_by_key(|task| {
                core::cmp::Reverse((Some(task.report.revision) == aim, task.report.state, task.report.id))
            });
            let kept: Vec<(TaskId, u64, TaskState)> =
                kept.iter().map(|task| (task.report.id, task.report.revision, task.report.state)).collect();
            let elder = match (kept.as_slice(), service) {
                ([best, others @ ..], Some(service)) if Some(best.1) == aim && !others.is_empty() => {
                    let runs = |other: &&(TaskId, u64, TaskState)| other.1 != best.1 && other.2 == TaskState::Running;
                    let monitor = goals.monitor(service);
                    others.iter().find(runs).filter(|_| !self.takes_over(now, &best.0, monitor)).map(|elder| elder.0)
                }
                _ => None,
            };
            unwanted.extend(kept.iter().skip(1).map(|(id, ..)| *id).filter(|id| Some(*id) != elder));
            for id in unwanted {
                self.stop(now, id, sources);
            }
        }
    }

    /// Decides on one live task, its revision apart.
    fn judge<'a>(
        &self,
        now: Now,
        task: &Task,
        sources: Sources<'a>,
        block: Option<Block>,
        goals: &mut Goals<'a>,
    ) -> Verdict {
        let report = &task.report;
        let service = sources.intent.service(&report.service).filter(|service| service.spec.has_slot(report.slot));
        let Some(service) = service.filter(|_| block.is_some_and(|block| holds(&block, &report.addresses))) else {
            return Verdict::Stop;
        };
        let job = service.spec.mode.is_job();
        if job && (report.revision != service.revision || sources.intent.is_completed(service, report.slot)) {
            return Verdict::Stop;
        }
        let fenced = service.spec.is_fenced();
        if fenced && self.fence.is_lost(now.mono) {
            return Verdict::Stop;
        }
        match sources.plan.assignments.get(&task.slot()) {
            Some(node) if *node == self.own || mutation::on(Mutation::DoublePlacement) => Verdict::Keep,
            Some(_) if fenced && !mutation::on(Mutation::FenceIgnored) => Verdict::Stop,
            Some(_) if mutation::on(Mutation::BreakBeforeMake) => Verdict::Stop,
            Some(_) if report.state < TaskState::Running => Verdict::Stop,
            Some(node) if self.is_succeeded(node, task, sources, service, goals) => Verdict::Stop,
            // Nobody starts a job's task elsewhere while it runs here.
            Some(_) if job && self.must_go(report, sources) => Verdict::Stop,
            // It runs, and the node that should run it does not yet.
            Some(_) => Verdict::Keep,
            None if report.state < TaskState::Running || self.must_go(report, sources) => Verdict::Stop,
            // No node has room for it, this one neither; it may run on.
            None => Verdict::Keep,
        }
    }

    /// Tells whether `node` is up and has reported since it came up that the slot of `task` has what it needs there, of the same
    /// revision or of one that the service's slots run on purpose: a task that runs, or one that did its work for good. One
    /// that failed for good is as much as will come where this one has to go. Revisions are compared for equality only: after
    /// a split the write that wins may be of any.
    fn is_succeeded<'a>(
        &self,
        node: &NodeId,
        task: &Task,
        sources: Sources<'a>,
        service: &'a Service,
        goals: &mut Goals<'a>,
    ) -> bool {
        let known = sources.membership.is_up(node) && sources.reports.is_confirmed(node);
        let tasks = sources.reports.of(node).filter(|_| known).map(|report| report.tasks.values());
        tasks.into_iter().flatten().filter(|other| (other.service, other.slot) == task.slot()).any(|other| {
            let serves = match other.state {
                TaskState::Running => true,
                TaskState::Complete => other.over,
                TaskState::Failed => other.over && self.must_go(&task.report, sources),
                TaskState::Accepted
                | TaskState::Preparing
                | TaskState::Starting
                | TaskState::Stopping
                | TaskState::Shutdown => false,
            };
            serves && goals.succeeds(service, other.revision, task.report.revision)
        })
    }

    /// Tells whether a task has to end though no node takes its slot: its node is drained, leaves, or does not meet its
    /// service's constraints any more, or it is of a global service, which this node should not run.
    fn must_go(&self, report: &TaskReport, sources: Sources<'_>) -> bool {
        let drained =
            sources.intent.nodes().get(&self.own).map(|node| node.spec.availability) == Some(Availability::Drain);
        let global = sources.intent.service(&report.service).is_some_and(|service| service.spec.mode.is_global());
        drained || sources.membership.own().meta.leaving || global || !sources.plan.may_run(&self.own, &report.service)
    }

    /// Stops tasks of another revision than their slot is to run, in slots assigned here: those that do not run at once,
    /// those that run if the front of the rollout has reached them and they need not wait for a successor, or that has done
    /// its work.
    pub(super) fn replace_outdated<'a>(&mut self, now: Now, sources: Sources<'a>, goals: &mut Goals<'a>) {
        let live = self.live();
        for (slot, service) in self.assigned(sources) {
            let before = self.revision_of(&slot, goals.of(service).target.revision);
            let aim = goals.aim(service, slot.1, before);
            let tasks = live.get(&slot).into_iter().flatten().map(|id| &self.tasks[id].report);
            let outdated = tasks.filter(|task| task.revision != aim.revision);
            let states: Vec<(TaskId, TaskState)> = outdated.map(|task| (task.id, task.state)).collect();
            for (id, state) in states {
                let stops = match state {
                    TaskState::Accepted | TaskState::Preparing | TaskState::Starting => true,
                    TaskState::Running => {
                        let succeeded = self.slots.get(&slot).is_some_and(|known| known.is_done_with(aim.revision));
                        goals.reaches(service, slot.1) && (succeeded || !goals.starts_beside(service, slot.1, before))
                    }
                    TaskState::Stopping | TaskState::Complete | TaskState::Failed | TaskState::Shutdown => false,
                };
                if stops {
                    // From now on it has moved, whatever becomes of the slots before it.
                    self.slots.entry(slot).or_insert_with(|| Restart::new(aim.revision)).follow(aim.revision);
                    self.stop(now, id, sources);
                }
            }
        }
    }

    /// Starts a task in each slot that is assigned here, has no live task here and need not wait; start-first also beside
    /// one that runs and is to be replaced.
    pub(super) fn start_missing<'a>(
        &mut self,
        now: Now,
        sources: Sources<'a>,
        block: Option<Block>,
        goals: &mut Goals<'a>,
    ) {
        let live = self.live();
        let mut room = self.room(sources);
        for (slot, service) in self.assigned(sources) {
            let before = self.revision_of(&slot, goals.of(service).target.revision);
            let aim = goals.aim(service, slot.1, before);
            self.slots.entry(slot).or_insert_with(|| Restart::new(aim.revision));
            let mut tasks = live.get(&slot).into_iter().flatten().map(|id| &self.tasks[id].report);
            let waits = tasks.any(|task| {
                let elder = task.state == TaskState::Running && task.revision != aim.revision;
                !elder || !goals.starts_beside(service, slot.1, before)
            });
            let held = service.spec.mode.is_job() && self.holds_job(service, slot, sources);
            if waits || held || (mutation::on(Mutation::LostSlot) && slot.1 == 3) {
                continue;
            }
            if !self.passes_fence(now, sources, service, slot.1) {
                continue;
            }
            let restart = self.slots.entry(slot).or_insert_with(|| Restart::new(aim.revision));
            restart.follow(aim.revision);
            restart.wake(now.mono);
            if let Some(block) = block.filter(|_| restart.is_ready() && room.take(service)) {
                self.claim_volumes(sources, service);
                let trial = goals.trial(service, aim.revision);
                self.start(now, block, service, (slot.1, aim, trial));
            }
        }
    }

    /// Claims the volumes that the first task of a service is to make here; global services use those of each node.
    fn claim_volumes(&mut self, sources: Sources<'_>, service: &Service) {
        if service.spec.mode.is_global() {
            return;
        }
        let known = sources.intent.volumes();
        for name in service.spec.task.container.volumes().filter(|name| !known.contains_key(*name)) {
            let claim = AgentAction::ClaimVolume(name.clone());
            if !self.actions.contains(&claim) {
                self.actions.push_back(claim);
            }
        }
    }

    /// Starts a task, if there is an address for it and room in the report.
    fn start(&mut self, now: Now, block: Block, service: &Service, (slot, aim, trial): (u32, Aim<'_>, Option<Trial>)) {
        if self.tasks.len() >= TASKS_PER_NODE_MAX && !self.forget_oldest() {
            return;
        }
        let live = self.tasks.values().filter(|task| !task.report.state.is_final());
        let used = live.map(|task| task.report.addresses.v6.octets()[15]).collect();
        let Some(host) = self.hosts.take(&used) else { return };
        self.counter += 1;
        let order = TaskOrder {
            id: TaskId::derive(&self.own, self.epoch, self.counter),
            service: service.id,
            service_name: service.spec.name.clone(),
            slot,
            revision: aim.revision,
            addresses: block.host(host),
            fenced: service.spec.is_fenced(),
            spec: aim.task.clone(),
        };
        let mut task = Task::new(&order, self.counter, now.wall_ms);
        task.trial = trial;
        self.actions.push_back(AgentAction::Report(task.report.clone()));
        self.tasks.insert(order.id, task);
        self.actions.push_back(AgentAction::Task(TaskCommand::Start(order)));
    }

    /// Forgets final tasks of services and slots that are gone, those beyond a slot's history, and slots that are
    /// assigned elsewhere.
    pub(super) fn forget(&mut self, sources: Sources<'_>) {
        let mut history: BTreeMap<Slot, Vec<(u64, TaskId)>> = BTreeMap::new();
        for (id, task) in self.tasks.iter().filter(|(_, task)| task.report.state.is_final()) {
            history.entry(task.slot()).or_default().push((task.number, *id));
        }
        for (slot, mut tasks) in history {
            let wanted = sources.intent.service(&slot.0).is_some_and(|service| service.spec.has_slot(slot.1));
            tasks.sort_unstable();
            let surplus = if wanted { tasks.len().saturating_sub(TASK_HISTORY_PER_SLOT) } else { tasks.len() };
            for (_, id) in &tasks[..surplus] {
                self.forget_task(*id);
            }
        }
        self.slots.retain(|slot, _| sources.plan.assignments.get(slot) == Some(&self.own));
        // Another task follows it, or will should its slot come back. What a job has done is kept elsewhere.
        let is_job =
            |task: &Task| sources.intent.service(&task.slot().0).is_some_and(|service| service.spec.mode.is_job());
        let is_over =
            |task: &Task| self.slots.get(&task.slot()).is_some_and(|slot| slot.is_over_with(task.report.revision));
        for task in self.tasks.values_mut().filter(|task| task.report.over && !is_over(task) && !is_job(task)) {
            task.report.over = false;
            self.actions.push_back(AgentAction::Report(task.report.clone()));
        }
    }

    /// Forgets the oldest final task; tells whether there was one.
    fn forget_oldest(&mut self) -> bool {
        let finals = self.tasks.values().filter(|task| task.report.state.is_final());
        let oldest = finals.min_by_key(|task| task.number).map(|task| task.report.id);
        oldest.inspect(|id| self.forget_task(*id)).is_some()
    }

    fn forget_task(&mut self, id: TaskId) {
        self.tasks.remove(&id);
        self.actions.push_back(AgentAction::Retract(id));
        self.actions.push_back(AgentAction::Task(TaskCommand::Remove(id)));
    }

    /// Returns the slots that are assigned here, with their services, in order.
    fn assigned<'a>(&self, sources: Sources<'a>) -> Vec<(Slot, &'a Service)> {
        let own = sources.plan.assignments.of(&self.own);
        own.filter_map(|slot| Some((slot, sources.intent.service(&slot.0)?))).collect()
    }
}

fn holds(block: &Block, addresses: &Addresses) -> bool {
    addresses.v4.is_some() && addresses.iter().all(|address| block.contains(address))
}
