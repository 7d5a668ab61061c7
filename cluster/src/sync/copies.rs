//! Copies: which members have this node's own writes on their disks, and when to tell them once more.
//!
//! Input: own writes, and what members say they stored. Output: on how many other disks a write is. A member says so
//! only after it made the write durable.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::message::ActorKnown;
use crate::clock::Instant;
use crate::id::NodeId;

/// Time between attempts to have a write stored elsewhere.
const RETRY: Duration = Duration::from_millis(250);
/// Attempts before the rest is left to anti-entropy.
const TRIES_MAX: u32 = 12;

/// What others have of this node's writes in this run.
#[derive(Clone, Debug, Default)]
pub struct Copies {
    stored: BTreeMap<NodeId, ActorKnown>,
    /// The last write that is on no other disk yet, as far as is known, when to tell it again and how often it was.
    waiting: Option<(u64, Instant, u32)>,
}

impl Copies {
    /// Takes in a write of this node, which was told to others just now.
    pub fn wrote(&mut self, now: Instant, counter: u64) {
        self.waiting = Some((counter, now + RETRY, 0));
    }

    /// Takes in what a member has made durable.
    pub fn note(&mut self, member: NodeId, known: &ActorKnown) {
        let before = self.stored.get(&member);
        if before.is_none_or(|before| before.upto <= known.upto) {
            self.stored.insert(member, known.clone());
        }
        if self.waiting.is_some_and(|(counter, ..)| self.count(counter) > 0) {
            self.waiting = None;
        }
    }

    /// Returns on how many other nodes' disks a write is, as far as is known.
    pub fn count(&self, counter: u64) -> usize {
        self.stored.values().filter(|known| known.upto >= counter || known.ahead.contains(&counter)).count()
    }

    /// Returns up to which write all are on some other disk.
    pub fn upto(&self) -> u64 {
        self.stored.values().map(|known| known.upto).max().unwrap_or_default()
    }

    /// Tells whether it is time to tell others again.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let Some((counter, at, tries)) = self.waiting.filter(|(_, at, _)| *at <= now) else { return false };
        self.waiting = (tries + 1 < TRIES_MAX).then_some((counter, at.max(now) + RETRY, tries + 1));
        true
    }

    /// Returns when [`Self::is_due`] has something to say.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.map(|(_, at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;
    use crate::crdt::Actor;

    fn known(upto: u64, ahead: &[u64]) -> ActorKnown {
        let actor = Actor { node: NodeId([0; 32]), epoch: 1 };
        ActorKnown { actor, upto, ahead: ahead.iter().copied().collect::<BTreeSet<_>>() }
    }

    #[test]
    fn a_write_is_told_again_until_somebody_has_stored_it() {
        let mut copies = Copies::default();
        let at = |millis: u64| Instant::from_micros(millis * 1_000);
        copies.wrote(at(0), 5);
        assert!(!copies.is_due(at(249)) && copies.is_due(at(250)) && !copies.is_due(at(300)) && copies.is_due(at(500)));
        copies.note(NodeId([1; 32]), &known(3, &[5]));
        assert_eq!((copies.count(4), copies.count(5), copies.deadline()), (0, 1, None));
        copies.note(NodeId([2; 32]), &known(5, &[]));
        copies.note(NodeId([2; 32]), &known(4, &[]));
        assert_eq!((copies.count(4), copies.count(5), copies.upto()), (1, 2, 5));
        copies.wrote(at(0), 6);
        assert_eq!((1..100).filter(|second| copies.is_due(at(second * 1_000))).count(), TRIES_MAX as usize);
    }
}
