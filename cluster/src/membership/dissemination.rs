//! Dissemination: which changes ride on the next message, and when a message is sent for their sake alone.
//!
//! Input: changes. Output: up to [`UPDATES_MAX`] of them per message, those told least often first, then the newest;
//! each is told a bounded number of times (SWIM §4.1), anti-entropy mends what that misses. A fresh change is due at
//! once, but for a short spacing that gathers bursts; what is left is told again at each interval.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::message::{UPDATES_MAX, Update};
use crate::clock::Instant;
use crate::id::NodeId;

/// Members that one round of gossip goes to.
pub(super) const FANOUT: usize = 3;
/// Time between rounds of gossip while there is something to tell, memberlist's LAN profile.
const INTERVAL: Duration = Duration::from_millis(200);
/// Least time between two rounds, so that a burst of changes leaves together.
const SPACING: Duration = Duration::from_millis(20);
/// Each change is told this often, times the decimal digits of the number of members; memberlist's multiplier.
const RETRANSMIT: u32 = 4;

/// The changes that this node still tells, at most one per member.
#[derive(Clone, Debug, Default)]
pub(super) struct Updates {
    queue: BTreeMap<NodeId, Queued>,
    sequence: u64,
    last: Option<Instant>,
    due: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Queued {
    update: Update,
    told: u32,
    sequence: u64,
}

impl Updates {
    /// Tells this change from now on, in place of an older one of the same member.
    pub(super) fn push(&mut self, now: Instant, update: Update) {
        self.sequence += 1;
        self.queue.insert(update.member.id, Queued { update, told: 0, sequence: self.sequence });
        let earliest = self.last.map_or(now, |last| now.max(last + SPACING));
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// Returns the changes for one message to `count` members, after `first`, and counts them as told.
    pub(super) fn take(&mut self, first: Vec<Update>, count: usize, members: usize) -> Vec<Update> {
        let mut order: Vec<(u32, core::cmp::Reverse<u64>, NodeId)> =
            self.queue.iter().map(|(id, queued)| (queued.told, core::cmp::Reverse(queued.sequence), *id)).collect();
        order.sort_unstable();
        let mut taken = first;
        taken.truncate(UPDATES_MAX);
        for (_, _, id) in order {
            if taken.len() == UPDATES_MAX {
                break;
            }
            if taken.iter().any(|update| update.member.id == id) {
                continue;
            }
            if let Some(queued) = self.queue.get_mut(&id) {
                queued.told += count as u32;
                taken.push(queued.update.clone());
                if queued.told >= told_max(members) {
                    self.queue.remove(&id);
                }
            }
        }
        taken
    }

    /// Returns when the next round of gossip is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Notes a round of gossip; call it after [`Self::take`].
    pub(super) fn sent(&mut self, now: Instant) {
        self.last = Some(now);
        self.due = (!self.queue.is_empty()).then(|| now + INTERVAL);
    }
}

/// Returns how often one change is told by one node.
fn told_max(members: usize) -> u32 {
    RETRANSMIT * (members.max(1).ilog10() + 1)
}
