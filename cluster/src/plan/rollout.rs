//! Rollouts: which slots of a service run which revision now, and when a rollout has ended.
//!
//! Input: a service, the verdict on its rollout, who runs its slots, who is up, what nodes report. Output: what each slot
//! is to run, up to which slot the rollout has come (its *front*), and the verdict that follows. No clock: a task's own
//! node says when it has run for long enough. Nobody counts for the others; see `docs/protocol.md#rollout`.

use alloc::collections::{BTreeMap, BTreeSet};

use super::placement::Assignments;
use crate::id::{Leg, NodeId, TaskId};
use crate::intent::service::{Mode, Service, TaskSpec};
use crate::intent::update::{FailureAction, Ruling, UpdateConfig, Verdict};
use crate::membership::Membership;
use crate::mutation::{self, Mutation};
use crate::reports::Reports;
use crate::reports::task::{TaskReport, TaskState};

/// What a rollout is computed from, intent apart.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Who runs which slot.
    pub assignments: &'a Assignments,
    /// Who is up.
    pub membership: &'a Membership,
    /// What nodes say of themselves.
    pub reports: &'a Reports,
}

/// What a slot is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim<'a> {
    /// Its revision.
    pub revision: u64,
    /// What it is.
    pub task: &'a TaskSpec,
}

/// Where the slots of a service are to go, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal<'a> {
    /// What all slots are to run in the end.
    pub target: Aim<'a>,
    /// What a slot runs that the front has not reached and that has no task.
    pub base: Option<Aim<'a>>,
    /// How slots move.
    pub config: &'a UpdateConfig,
    /// Whether they do.
    pub stage: Stage,
}

/// Whether the slots of a service move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No rollout is under way. What still runs another revision, on a node that was away, is replaced likewise.
    Settled,
    /// Slots move to the revision that was asked for.
    There(Leg),
    /// Slots move back to the one before.
    Back(Leg),
    /// Too many have failed: no slot moves.
    Frozen,
}

/// Up to which slot a rollout has come: those beyond must not move yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// All may move.
    All,
    /// This one and those before it may.
    Upto(u32),
    /// None may.
    Closed,
}

impl Front {
    /// Tells whether a slot may move.
    pub fn includes(self, slot: u32) -> bool {
        match self {
            Self::All => true,
            Self::Upto(last) => slot <= last,
            Self::Closed => false,
        }
    }
}

impl<'a> Goal<'a> {
    /// Returns the goal of a service on whose rollout this is the verdict.
    pub fn of(service: &'a Service, verdict: Verdict) -> Self {
        let target = Aim { revision: service.revision, task: &service.spec.task };
        let base = service.base().filter(|base| base.revision != service.revision);
        let base = base.map(|base| Aim { revision: base.revision, task: &base.spec.task });
        let backward = service.rollout.is_some_and(|rollout| rollout.backward);
        let config = if backward || verdict.is_back() { &service.spec.rollback } else { &service.spec.update };
        let Some(rollout) = service.rollout else { return Self { target, base: None, config, stage: Stage::Settled } };
        let back = base.unwrap_or(target);
        match verdict {
            Verdict::Progressing => Self { target, base, config, stage: Stage::There(rollout.id.there()) },
            Verdict::Completed => Self { target, base: None, config, stage: Stage::Settled },
            Verdict::Paused => Self { target, base, config, stage: Stage::Frozen },
            Verdict::RolledBack => Self { target: back, base: None, config, stage: Stage::Back(rollout.id.back()) },
            Verdict::RollbackCompleted => Self { target: back, base: None, config, stage: Stage::Settled },
            Verdict::RollbackPaused => Self { target: back, base: None, config, stage: Stage::Frozen },
        }
    }

    /// Returns the direction in which slots move, while they do.
    pub fn leg(&self) -> Option<Leg> {
        match self.stage {
            Stage::There(leg) | Stage::Back(leg) => Some(leg),
            Stage::Settled | Stage::Frozen => None,
        }
    }

    /// Tells whether a task with this report shows that its slot has arrived: it has run for long enough, or is the last that
    /// the slot will have. Once a rollout has ended, what became of a task of the target is no longer of account: one that
    /// fails again and again must not hold up the others for ever.
    fn is_shown_by(&self, report: &TaskReport) -> bool {
        let settled = self.stage == Stage::Settled;
        report.revision == self.target.revision
            && match report.state {
                TaskState::Running => report.stable || settled,
                TaskState::Complete | TaskState::Failed => report.over || settled,
                TaskState::Accepted
                | TaskState::Preparing
                | TaskState::Starting
                | TaskState::Stopping
                | TaskState::Shutdown => false,
            }
    }
}

/// How far the slots of a service have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The slots that have a node, with it. Others wait for room and hold up nobody.
    pub slots: BTreeMap<u32, NodeId>,
    /// Those that have arrived: their node is up, and says so since it came up.
    pub arrived: BTreeSet<u32>,
    /// Those that failed on the way, on any node. They hold up nobody either.
    pub failed: BTreeSet<u32>,
    /// One of the tasks that failed.
    pub failed_task: Option<TaskId>,
}

impl Standing {
    /// Returns how far the slots of a service have come towards a goal.
    pub fn of(service: &Service, goal: &Goal<'_>, facts: Facts<'_>) -> Self {
        let assigned = facts.assignments.slots(&service.id).filter(|(slot, _)| service.spec.has_slot(*slot));
        let slots: BTreeMap<u32, NodeId> = assigned.collect();
        let nodes: BTreeSet<&NodeId> = slots.values().collect();
        let mut arrived = BTreeSet::new();
        for node in nodes {
            let known = facts.membership.is_up(node) && facts.reports.is_confirmed(node);
            let tasks = facts.reports.of(node).filter(|_| known).map(|report| report.tasks.values());
            let ours = tasks.into_iter().flatten().filter(|task| task.service == service.id);
            let here = ours.filter(|task| slots.get(&task.slot) == Some(node) && goal.is_shown_by(task));
            arrived.extend(here.map(|task| task.slot));
        }
        let (mut failed, failed_task) =
            goal.leg().map(|leg| facts.reports.failures(&service.id, leg)).unwrap_or_default();
        failed.retain(|slot| service.spec.has_slot(*slot));
        Self { slots, arrived, failed, failed_task }
    }

    /// Tells whether a slot is on its way, or has to go yet.
    fn is_open(&self, slot: u32) -> bool {
        !self.arrived.contains(&slot) && !self.failed.contains(&slot)
    }

    /// Tells whether more slots have failed than may.
    fn fails(&self, service: &Service, config: &UpdateConfig) -> bool {
        let all = match service.spec.mode {
            Mode::Replicated => service.spec.replicas as usize,
            Mode::Global | Mode::ReplicatedJob { .. } | Mode::GlobalJob => self.slots.len(),
        };
        let (failed, all) = (self.failed.len() as u64, all.max(1) as u64);
        failed * 1_000_000 > u64::from(config.failure_ratio_max_ppm) * all
    }

    /// Tells whether every slot that has a node has come as far as it will. Where none has shown anything nothing is
    /// known: its nodes may all be on the other side of a split.
    fn is_over(&self, service: &Service) -> bool {
        let none = service.spec.mode == Mode::Replicated && service.spec.replicas == 0;
        let shown = self.slots.keys().any(|slot| !self.is_open(*slot));
        (none || shown) && self.slots.keys().all(|slot| !self.is_open(*slot))
    }
}

/// Returns up to which slot the tasks of a service may be replaced now: slots go in order of number, and as many may be
/// under way as the parallelism says. Each that has not shown that it arrived counts, whatever the reason. So the
/// parallelism holds without anybody counting for the others: of the slots under way the last one moved when its node
/// saw fewer than that many before it that had not arrived, and arriving is not taken back.
pub fn front(service: &Service, goal: &Goal<'_>, facts: Facts<'_>) -> Front {
    if goal.stage == Stage::Frozen {
        return Front::Closed;
    }
    if service.spec.mode.is_job() {
        return Front::All;
    }
    let standing = Standing::of(service, goal, facts);
    let stops = goal.leg().is_some() && goal.config.failure_action != FailureAction::Continue;
    if stops && standing.fails(service, goal.config) {
        return Front::Closed;
    }
    let ignored = match goal.stage {
        Stage::There(_) => mutation::on(Mutation::ParallelismIgnored),
        Stage::Back(_) => mutation::on(Mutation::RollbackParallelismIgnored),
        Stage::Settled | Stage::Frozen => false,
    };
    let Some(last) = (goal.config.parallelism as usize).checked_sub(1).filter(|_| !ignored) else { return Front::All };
    let mut open = standing.slots.keys().filter(|slot| standing.is_open(**slot));
    open.nth(last).map_or(Front::All, |slot| Front::Upto(*slot))
}

/// Returns the verdict that follows from what nodes report, if it is a later one than `verdict`.
pub fn ruling(service: &Service, verdict: Verdict, facts: Facts<'_>) -> Option<Ruling> {
    let rollout = service.rollout.filter(|_| verdict.is_open())?;
    let goal = Goal::of(service, verdict);
    let standing = Standing::of(service, &goal, facts);
    let fails = standing.fails(service, goal.config);
    let back = match verdict {
        Verdict::RolledBack => true,
        Verdict::Progressing => false,
        Verdict::Completed | Verdict::Paused | Verdict::RollbackCompleted | Verdict::RollbackPaused => return None,
    };
    let (verdict, task) = match goal.config.failure_action {
        FailureAction::Rollback if fails && !back && goal.base.is_some() => (Verdict::RolledBack, standing.failed_task),
        FailureAction::Rollback | FailureAction::Pause if fails => {
            (if back { Verdict::RollbackPaused } else { Verdict::Paused }, standing.failed_task)
        }
        FailureAction::Rollback | FailureAction::Pause | FailureAction::Continue if standing.is_over(service) => {
            (if back { Verdict::RollbackCompleted } else { Verdict::Completed }, None)
        }
        FailureAction::Rollback | FailureAction::Pause | FailureAction::Continue => return None,
    };
    Some(Ruling { service: service.id, rollout: rollout.id, verdict, task })
}
