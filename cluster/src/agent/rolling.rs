//! Rolling: what each slot here is to run while its service moves to another revision, and what this node tells of it.
//!
//! Input: the goals of services and the front of each rollout (`crate::plan::rollout`), what runs here, time. Output: for
//! each slot the revision to run and whether it may move now; reports of tasks that are stable and of slots that failed.
//! See `docs/protocol.md#rollout`.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use core::time::Duration;

use super::restart::Restart;
use super::task::{Task, Trial};
use super::{Agent, AgentAction, Slot, Sources};
use crate::clock::{Instant, Now};
use crate::id::{Leg, ServiceId, TaskId};
use crate::intent::service::Service;
use crate::intent::update::UpdateOrder;
use crate::limits::FAILED_SLOTS_MAX;
use crate::mutation::{self, Mutation};
use crate::plan::rollout::{self, Aim, Facts, Front, Goal, Stage};
use crate::reports::item::Failures;
use crate::reports::task::TaskState;

/// What services are to run, each looked up once in a reconciliation.
pub(super) struct Goals<'a> {
    sources: Sources<'a>,
    goals: BTreeMap<ServiceId, Goal<'a>>,
    fronts: BTreeMap<ServiceId, Front>,
}

impl<'a> Goals<'a> {
    pub(super) fn new(sources: Sources<'a>) -> Self {
        Self { sources, goals: BTreeMap::new(), fronts: BTreeMap::new() }
    }

    /// Returns where the slots of a service are to go.
    pub(super) fn of(&mut self, service: &'a Service) -> Goal<'a> {
        *self.goals.entry(service.id).or_insert_with(|| Goal::of(service, self.sources.intent.verdict(service)))
    }

    /// Tells whether the front of the rollout has reached a slot, so that what runs in it may be replaced.
    pub(super) fn reaches(&mut self, service: &'a Service, slot: u32) -> bool {
        let goal = self.of(service);
        let Sources { plan, membership, reports, .. } = self.sources;
        let facts = Facts { assignments: &plan.assignments, membership, reports };
        let front = self.fronts.entry(service.id).or_insert_with(|| rollout::front(service, &goal, facts));
        front.includes(slot)
    }

    /// Returns what a slot is to run; `before` is the revision that it was to run last on this node. One that has moved
    /// does not move back because a slot before it is open again.
    pub(super) fn aim(&mut self, service: &'a Service, slot: u32, before: Option<u64>) -> Aim<'a> {
        let goal = self.of(service);
        match (goal.stage, goal.base) {
            (Stage::There(_) | Stage::Frozen, Some(base)) if before != Some(goal.target.revision) => {
                if self.reaches(service, slot) { goal.target } else { base }
            }
            (Stage::Settled | Stage::There(_) | Stage::Back(_) | Stage::Frozen, _) => goal.target,
        }
    }

    /// Tells whether the old task of a slot may run on while the new one starts beside it.
    pub(super) fn starts_beside(&mut self, service: &'a Service, slot: u32, before: Option<u64>) -> bool {
        let goal = self.of(service);
        goal.config.order == UpdateOrder::StartFirst
            && (before == Some(goal.target.revision) || self.reaches(service, slot))
    }

    /// Tells whether a task of revision `other` on the node that a slot is given to is a successor for one of revision
    /// `own`: the same, or one that the service's slots run on purpose. While slots move none goes back by moving to
    /// another node.
    pub(super) fn succeeds(&mut self, service: &'a Service, other: u64, own: u64) -> bool {
        let goal = self.of(service);
        let moves = matches!(goal.stage, Stage::There(_));
        let back = own == goal.target.revision && moves;
        other == own || other == goal.target.revision || (goal.base.is_some_and(|base| base.revision == other) && !back)
    }

    /// Returns which rollout the end of a task of this revision is a failure of, if of any.
    pub(super) fn trial(&mut self, service: &'a Service, revision: u64) -> Option<Trial> {
        let goal = self.of(service);
        let leg = goal.leg().filter(|_| revision == goal.target.revision)?;
        Some(Trial { leg, monitor: Duration::from_millis(goal.config.monitor_ms) })
    }

    /// Returns how long a moved task of a service is watched.
    pub(super) fn monitor(&mut self, service: &'a Service) -> Duration {
        Duration::from_millis(self.of(service).config.monitor_ms)
    }
}

impl Agent {
    /// Returns the revision that a slot was to run last. One in which a task of the target is has moved, though this run
    /// of the node or the slot's other nodes know nothing of how: a daemon that restarts must not move it back.
    pub(super) fn revision_of(&self, slot: &Slot, target: u64) -> Option<u64> {
        let moved = |task: &Task| task.slot() == *slot && task.report.revision == target;
        let found = self.tasks.values().filter(|task| !task.report.state.is_final()).any(moved);
        if found { Some(target) } else { self.slots.get(slot).map(Restart::revision) }
    }

    /// Notes which tasks are on trial, and reports those that have run for long enough.
    pub(super) fn watch_moved<'a>(&mut self, now: Now, sources: Sources<'a>, goals: &mut Goals<'a>) {
        self.wake_at = None;
        for task in self.tasks.values_mut().filter(|task| task.report.state < TaskState::Stopping) {
            task.trial = None;
            let Some(service) = sources.intent.service(&task.report.service) else { continue };
            let Some(trial) = goals.trial(service, task.report.revision).filter(|_| !task.report.stable) else {
                continue;
            };
            task.trial = Some(trial);
            let watch = trial.monitor + Duration::from_millis(goals.of(service).config.delay_ms);
            let watch = if mutation::on(Mutation::MonitorIgnored) { Duration::ZERO } else { watch };
            let Some(due) = task.due(watch) else { continue };
            if due <= now.mono {
                task.report.stable = true;
                self.actions.push_back(AgentAction::Report(task.report.clone()));
            } else {
                wake(&mut self.wake_at, due);
            }
        }
    }

    /// Tells whether the task that runs beside an older one in its slot has run for long enough to take over.
    pub(super) fn takes_over(&mut self, now: Now, id: &TaskId, monitor: Duration) -> bool {
        let monitor = if mutation::on(Mutation::StartFirstIgnored) { Duration::ZERO } else { monitor };
        let Some(due) = self.tasks.get(id).and_then(|task| task.due(monitor)) else {
            return mutation::on(Mutation::StartFirstIgnored);
        };
        if due > now.mono {
            wake(&mut self.wake_at, due);
        }
        due <= now.mono
    }

    /// Notes that a task on trial ended by itself; `last` says that no other follows it.
    pub(super) fn note_failure(&mut self, task: &Task, ran: Duration, last: bool) {
        let Some(trial) = task.trial.filter(|trial| ran < trial.monitor || last) else { return };
        if mutation::on(Mutation::FailuresForgotten) {
            return;
        }
        let (service, slot) = task.slot();
        let failures = match self.failures.entry((service, trial.leg)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                new.insert(Failures { slots: alloc::collections::BTreeSet::new(), task: task.report.id })
            }
        };
        if failures.slots.len() < FAILED_SLOTS_MAX && failures.slots.insert(slot) {
            let told = Some(failures.clone());
            self.actions.push_back(AgentAction::ReportFailures(service, trial.leg, told));
        }
    }

    /// Forgets failures of rollouts that are no longer their services' present ones.
    pub(super) fn forget_failures(&mut self, sources: Sources<'_>) {
        let gone = |(service, leg): &&(ServiceId, Leg)| {
            let rollout = sources.intent.service(service).and_then(|service| service.rollout);
            rollout.is_none_or(|rollout| *leg != rollout.id.there() && *leg != rollout.id.back())
        };
        let gone: alloc::vec::Vec<(ServiceId, Leg)> = self.failures.keys().filter(gone).copied().collect();
        for (service, leg) in gone {
            self.failures.remove(&(service, leg));
            self.actions.push_back(AgentAction::ReportFailures(service, leg, None));
        }
    }
}

fn wake(at: &mut Option<Instant>, due: Instant) {
    *at = Some(at.map_or(due, |at| at.min(due)));
}
