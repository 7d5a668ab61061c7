//! Restart: when a slot whose task ended may start another.
//!
//! Input: ends, and the policy of the task that ended. Output: the delay, or that no other follows. The delay doubles
//! with each end in a row, up to [`RESTART_DELAY_MAX`]; a task that ran for [`STABLE`] begins a new row, as does a new
//! revision. The attempts that a policy allows are those in a row or, if it has a window, those within that. See `docs/protocol.md#tasks`.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::clock::Instant;
use crate::intent::service::{RESTART_DELAY_MAX, RestartCondition, RestartPolicy};

/// How long a task has to run for its end to count as the first in a row: half of the longest delay.
pub(super) const STABLE: Duration = Duration::from_secs(30);

/// What one slot waits for while it has no live task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Restart {
    revision: u64,
    in_a_row: u64,
    /// When it was restarted, as far as its policy's window reaches back.
    lately: VecDeque<Instant>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It may start. Entered at first, by a new revision, and when the delay is over.
    Ready,
    /// It may start then. Entered by an end that another start follows.
    Waiting(Instant),
    /// Its task did its work, and the policy wants no other. Ended by a new revision.
    Done,
    /// Its tasks failed, and the policy wants no other. Ended by a new revision.
    GivenUp,
}

impl Restart {
    /// Makes a slot that may start at once.
    pub(super) fn new(revision: u64) -> Self {
        Self { revision, in_a_row: 0, lately: VecDeque::new(), phase: Phase::Ready }
    }

    /// Returns which revision the slot is to run.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Begins anew if the slot is to run another revision than before.
    pub(super) fn follow(&mut self, revision: u64) {
        if self.revision != revision {
            *self = Self::new(revision);
        }
    }

    /// Takes in that the slot's task ended by itself after it `ran` so long; returns the delay of the next, if any.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        policy: &RestartPolicy,
        failed: bool,
        ran: Duration,
    ) -> Option<Duration> {
        if ran >= STABLE {
            self.in_a_row = 0;
        }
        let wanted = match policy.condition {
            RestartCondition::None => false,
            RestartCondition::OnFailure => failed,
            RestartCondition::Any => true,
        };
        if !wanted || self.is_exhausted(now, policy) {
            self.phase = if failed { Phase::GivenUp } else { Phase::Done };
            return None;
        }
        let delay = delay(policy, self.in_a_row);
        self.in_a_row += 1;
        if policy.window_ms.is_some() && policy.attempts_max.is_some() {
            self.lately.push_back(now);
        }
        self.phase = Phase::Waiting(now + delay);
        Some(delay)
    }

    /// Tells whether it was restarted as often as its policy allows.
    fn is_exhausted(&mut self, now: Instant, policy: &RestartPolicy) -> bool {
        let Some(most) = policy.attempts_max else { return false };
        let Some(window) = policy.window_ms.map(Duration::from_millis) else { return self.in_a_row >= most };
        while self.lately.front().is_some_and(|at| now.since(*at) >= window) {
            self.lately.pop_front();
        }
        self.lately.len() as u64 >= most
    }

    /// Ends a delay that is over.
    pub(super) fn wake(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Waiting(at) if at <= now) {
            self.phase = Phase::Ready;
        }
    }

    /// Tells whether the slot may start a task.
    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Tells whether the slot's task of this revision did its work, and no other follows.
    pub(super) fn is_done_with(&self, revision: u64) -> bool {
        self.phase == Phase::Done && self.revision == revision
    }

    /// Tells whether no other task of this revision follows, whether it did its work or not.
    pub(super) fn is_over_with(&self, revision: u64) -> bool {
        self.is_done_with(revision) || (self.phase == Phase::GivenUp && self.revision == revision)
    }

    /// Returns when the delay is over, if there is one.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting(at) => Some(at),
            Phase::Ready | Phase::Done | Phase::GivenUp => None,
        }
    }
}

/// Returns the delay after `before` restarts in a row. A policy with a longer first delay than the bound keeps it.
fn delay(policy: &RestartPolicy, before: u64) -> Duration {
    let first = Duration::from_millis(policy.delay_ms);
    let factor = u32::try_from(before).ok().and_then(|shift| 1_u32.checked_shl(shift)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(RESTART_DELAY_MAX.max(first))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(condition: RestartCondition, attempts_max: Option<u64>) -> RestartPolicy {
        RestartPolicy { condition, delay_ms: 1_000, attempts_max, window_ms: None }
    }

    #[test]
    fn delays_double_up_to_the_bound_and_begin_anew_after_a_long_run() {
        let mut restart = Restart::new(1);
        let policy = policy(RestartCondition::Any, None);
        let mut end =
            |ran| restart.ended(Instant::default(), &policy, true, Duration::from_secs(ran)).map(|d| d.as_secs());
        let delays: alloc::vec::Vec<_> = (0..9).map(|_| end(1)).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60].map(Some));
        assert_eq!((end(30), end(29)), (Some(1), Some(2)));
    }

    #[test]
    fn conditions_and_attempts_end_the_row() {
        let end = |restart: &mut Restart, policy: &RestartPolicy, failed| {
            restart.ended(Instant::default(), policy, failed, Duration::ZERO).is_some()
        };
        let never = policy(RestartCondition::None, None);
        let failure = policy(RestartCondition::OnFailure, Some(2));
        let mut restart = Restart::new(1);
        assert!(!end(&mut restart, &never, true) && restart.phase == Phase::GivenUp && !restart.is_ready());
        restart.follow(2);
        assert!(restart.is_ready());
        assert!(!end(&mut restart, &failure, false) && restart.phase == Phase::Done);
        restart.follow(3);
        assert!(end(&mut restart, &failure, true) && end(&mut restart, &failure, true));
        assert!(!end(&mut restart, &failure, true) && restart.phase == Phase::GivenUp && !restart.is_ready());
    }

    #[test]
    fn with_a_window_only_the_restarts_within_it_count() {
        let policy = RestartPolicy { window_ms: Some(100_000), ..policy(RestartCondition::Any, Some(3)) };
        let at = |seconds: u64| Instant::from_micros(seconds * 1_000_000);
        let mut restart = Restart::new(1);
        // A long run does not make up for them.
        let mut end = |seconds| restart.ended(at(seconds), &policy, true, Duration::from_secs(35)).is_some();
        assert!(end(0) && end(40) && end(80), "three restarts within 100 s");
        assert!(end(120), "the first is longer ago");
        assert!(!end(139), "those at 40, 80 and 120 are not");
        assert_eq!(restart.phase, Phase::GivenUp);
    }

    proptest! {
        /// However often it fails, a delay never shrinks within a row and never exceeds what is allowed.
        #[test]
        fn delays_are_bounded(delay_ms in any::<u64>(), before in any::<u64>()) {
            let policy = RestartPolicy { delay_ms, ..RestartPolicy::default() };
            let bound = RESTART_DELAY_MAX.max(Duration::from_millis(delay_ms));
            prop_assert!(delay(&policy, before) <= bound);
            prop_assert!(delay(&policy, before) <= delay(&policy, before.saturating_add(1)));
        }
    }
}
