//! One task of this node: its report, and what is needed to go on when it ends.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::Slot;
use crate::clock::{Instant, Now};
use crate::id::Leg;
use crate::intent::service::RestartPolicy;
use crate::io::TaskOrder;
use crate::limits::ERROR_BYTES_MAX;
use crate::reports::task::{TaskReport, TaskState};

/// One task; its report is what all others see.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// What this node says of it.
    pub(super) report: TaskReport,
    /// When its end is followed by another.
    pub(super) restart: RestartPolicy,
    /// Grows from task to task of this run.
    pub(super) number: u64,
    /// Which rollout its end would be a failure of, if any.
    pub(super) trial: Option<Trial>,
    running_since: Option<Instant>,
    /// Whether it is ended because it does not work, so that its end is a failure whoever asked for it.
    unhealthy: bool,
}

/// A task of the revision that a rollout moves to, until it is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trial {
    /// Which rollout, in which direction.
    pub(super) leg: Leg,
    /// How long it is watched.
    pub(super) monitor: Duration,
}

impl Task {
    /// Makes a task that is being prepared.
    pub(super) fn new(order: &TaskOrder, number: u64, wall_ms: u64) -> Self {
        let report = TaskReport {
            id: order.id,
            service: order.service,
            slot: order.slot,
            revision: order.revision,
            addresses: order.addresses,
            state: TaskState::Preparing,
            stable: false,
            over: false,
            since_ms: wall_ms,
            error: String::new(),
            exit_code: None,
        };
        Self { report, restart: order.spec.restart, number, trial: None, running_since: None, unhealthy: false }
    }

    /// Returns which replica of which service it is.
    pub(super) fn slot(&self) -> Slot {
        (self.report.service, self.report.slot)
    }

    /// Moves it to a later state; tells whether it was one.
    pub(super) fn advance(&mut self, now: Now, state: TaskState) -> bool {
        if state <= self.report.state || self.report.state.is_final() {
            return false;
        }
        self.report.state = state;
        self.report.since_ms = now.wall_ms;
        if state == TaskState::Running {
            self.running_since = Some(now.mono);
        }
        true
    }

    /// Takes it out of names and balancing because it does not work; tells whether that is news.
    pub(super) fn give_up(&mut self, now: Now) -> bool {
        self.unhealthy |= self.report.state < TaskState::Stopping;
        self.advance(now, TaskState::Stopping)
    }

    /// Moves it to its final state; tells whether it was not final before.
    pub(super) fn end(&mut self, now: Now, exit_code: Option<i32>, error: String) -> bool {
        let asked = self.report.state == TaskState::Stopping && !self.unhealthy;
        let state = match exit_code {
            Some(_) | None if asked => TaskState::Shutdown,
            Some(0) if error.is_empty() && !self.unhealthy => TaskState::Complete,
            Some(_) | None => TaskState::Failed,
        };
        if !self.advance(now, state) {
            return false;
        }
        self.report.exit_code = exit_code;
        self.report.error = match exit_code {
            Some(code) if error.is_empty() && state == TaskState::Failed => format!("task: non-zero exit ({code})"),
            Some(_) | None => error,
        };
        if self.report.error.is_empty() && state == TaskState::Failed {
            self.report.error = "task: ended by a signal, or never started".into();
        }
        let end = self.report.error.floor_char_boundary(ERROR_BYTES_MAX);
        self.report.error.truncate(end);
        true
    }

    /// Returns when it will have run for `time`, if it runs.
    pub(super) fn due(&self, time: Duration) -> Option<Instant> {
        (self.report.state == TaskState::Running).then_some(self.running_since? + time)
    }

    /// Returns how long it has run.
    pub(super) fn ran(&self, now: Instant) -> Duration {
        self.running_since.map_or(Duration::ZERO, |since| now.since(since))
    }
}
