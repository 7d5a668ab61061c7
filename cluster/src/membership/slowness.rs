//! Slowness: members that were late to answer or to refute; they get more time, for they are slow rather than dead.
//!
//! Input: late and timely answers. Output: who counts as slow. Knows nothing of probes and suspicions. See
//! `docs/protocol.md#suspicion`.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::clock::Instant;
use crate::id::NodeId;
use crate::limits::NODES_MAX;
use crate::mutation::{self, Mutation};

/// How long a member counts as slow if nothing shows that it no longer is.
const MEMORY: Duration = Duration::from_secs(600);
/// Timely answers in sequence after which a member is slow no longer. One whose messages take up to 5 s gives four such
/// in less than one of a hundred million tries.
const TIMELY_ENOUGH: u8 = 4;

/// The members that count as slow.
#[derive(Clone, Debug, Default)]
pub(super) struct Slowness(BTreeMap<NodeId, Past>);

#[derive(Clone, Copy, Debug)]
struct Past {
    until: Instant,
    timely: u8,
}

impl Slowness {
    /// Takes in that a member was late.
    pub(super) fn late(&mut self, now: Instant, id: NodeId) {
        if self.0.len() < NODES_MAX || self.0.contains_key(&id) {
            self.0.insert(id, Past { until: now + MEMORY, timely: 0 });
        }
    }

    /// Takes in that a member answered in time.
    pub(super) fn timely(&mut self, id: &NodeId) {
        let Some(past) = self.0.get_mut(id) else { return };
        past.timely = past.timely.saturating_add(1);
        if past.timely >= TIMELY_ENOUGH && !mutation::on(Mutation::SlowForLong) {
            self.0.remove(id);
        }
    }

    /// Tells whether a member counts as slow.
    pub(super) fn is_slow(&mut self, now: Instant, id: &NodeId) -> bool {
        if self.0.get(id).is_some_and(|past| past.until <= now) {
            self.0.remove(id);
        }
        self.0.contains_key(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_member_is_forgiven_after_some_timely_answers_or_after_a_while() {
        let (now, id) = (Instant::default(), NodeId([1; 32]));
        let mut slowness = Slowness::default();
        slowness.late(now, id);
        for _ in 1..TIMELY_ENOUGH {
            slowness.timely(&id);
        }
        assert!(slowness.is_slow(now, &id));
        slowness.late(now, id);
        slowness.timely(&id);
        assert!(slowness.is_slow(now, &id), "a late answer begins the sequence anew");
        for _ in 1..TIMELY_ENOUGH {
            slowness.timely(&id);
        }
        assert!(!slowness.is_slow(now, &id));
        slowness.late(now, id);
        assert!(!slowness.is_slow(now + MEMORY, &id));
    }
}
