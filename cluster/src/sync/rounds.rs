//! Rounds: with whom this node compares, when, what each peer said last, and whether this node has caught up.
//!
//! Input: time, peers that came up, and what peers say. Output: whom to ask now, and the next deadline.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use super::message::{Digests, Span};
use crate::clock::Instant;
use crate::id::NodeId;
use crate::seed::Stream;

/// Whether this node acts on what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settling {
    /// Entered at the start if others are known: what they know may differ. Ends with the first round in which
    /// this node lacked nothing, or at `until`.
    Waiting {
        /// When it gives up.
        until: Instant,
    },
    /// It acts. Never left.
    Settled,
}

/// What one peer said last.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// What it had.
    pub digests: Digests,
    /// How many intent writes known here it did not know.
    pub behind: u64,
    /// When it said so.
    pub at: Instant,
    /// While it tells what it knows in several messages: what was gathered of them.
    gathered: Option<Gathered>,
}

#[derive(Clone, Copy, Debug)]
struct Gathered {
    behind: u64,
    lacking: bool,
}

/// The rounds of one node.
#[derive(Clone, Debug)]
pub struct Rounds {
    interval: Duration,
    next: Instant,
    random: Stream,
    /// Peers to compare with at once.
    due: BTreeSet<NodeId>,
    said: BTreeMap<NodeId, Said>,
    settling: Settling,
}

impl Rounds {
    /// Makes the rounds of a node that settles at once if it is `alone`, or else at `until` at the latest.
    pub fn new(interval: Duration, alone: bool, until: Instant, random: Stream, now: Instant) -> Self {
        let settling = if alone { Settling::Settled } else { Settling::Waiting { until } };
        Self { interval, next: now, random, due: BTreeSet::new(), said: BTreeMap::new(), settling }
    }

    /// Returns whether this node acts.
    pub fn settling(&self) -> Settling {
        self.settling
    }

    /// Compares with this peer at the next opportunity.
    pub fn hurry(&mut self, peer: NodeId) {
        self.due.insert(peer);
    }

    /// Tells whether [`Self::ask`] has something to do.
    pub fn is_due(&self, now: Instant) -> bool {
        !self.due.is_empty() || now >= self.next
    }

    /// Returns whom to ask now: those that came up, and one random member of `up` if a round is due.
    pub fn ask(&mut self, now: Instant, up: &[NodeId]) -> Vec<NodeId> {
        let mut asked = core::mem::take(&mut self.due);
        if now >= self.next {
            self.next = now + scaled(self.jittered(), up.len());
            asked.extend(self.random.choose(up, 1));
        }
        asked.into_iter().collect()
    }

    /// Gives up waiting if it is time. Tells whether it was.
    pub fn give_up(&mut self, now: Instant) -> bool {
        match self.settling {
            Settling::Waiting { until } if now >= until => self.settle(),
            Settling::Waiting { .. } | Settling::Settled => false,
        }
    }

    /// Returns when [`Self::ask`] or [`Self::give_up`] has something to do at the latest.
    pub fn deadline(&self) -> Instant {
        match self.settling {
            Settling::Waiting { until } => until.min(self.next),
            Settling::Settled => self.next,
        }
    }

    /// Takes in a peer's summary. `same` says whether it knows the same as this node. Tells whether this node
    /// settled by it.
    pub fn summary(&mut self, now: Instant, peer: NodeId, digests: Digests, same: bool) -> bool {
        let behind = if same { 0 } else { self.said.get(&peer).map_or(0, |said| said.behind) };
        self.said.insert(peer, Said { digests, behind, at: now, gathered: None });
        same && self.settle()
    }

    /// Takes in what a peer knows of a span: how many writes it lacks there, and whether this node lacks some.
    /// Tells whether this node settled by it.
    pub fn known(
        &mut self,
        now: Instant,
        peer: NodeId,
        digests: Digests,
        span: Span,
        behind: u64,
        lacking: bool,
    ) -> bool {
        let before = self.said.get(&peer);
        let mut gathered = before.and_then(|said| said.gathered);
        if span.first == Span::ALL.first {
            gathered = Some(Gathered { behind: 0, lacking: false });
        }
        if let Some(gathered) = &mut gathered {
            gathered.behind = gathered.behind.saturating_add(behind);
            gathered.lacking |= lacking;
        }
        let mut said = Said { digests, behind: before.map_or(0, |said| said.behind), at: now, gathered };
        let complete = gathered.filter(|_| span.last == Span::ALL.last);
        if let Some(complete) = complete {
            said.behind = complete.behind;
            said.gathered = None;
        }
        self.said.insert(peer, said);
        complete.is_some_and(|complete| !complete.lacking) && self.settle()
    }

    /// Returns what each peer said last, in order of peer.
    pub fn said(&self) -> impl Iterator<Item = (&NodeId, &Said)> {
        self.said.iter()
    }

    /// Forgets what peers said for which `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(&NodeId) -> bool) {
        self.said.retain(|peer, _| keep(peer));
    }

    fn settle(&mut self) -> bool {
        let was_waiting = self.settling != Settling::Settled;
        self.settling = Settling::Settled;
        was_waiting
    }

    /// Three to five quarters of the interval, so that nodes started together do not speak together for ever.
    fn jittered(&mut self) -> Duration {
        let micros = u64::try_from(self.interval.as_micros()).unwrap_or(u64::MAX / 2);
        Duration::from_micros(micros / 4 * 3 + self.random.below(micros / 2 + 1))
    }
}

/// Returns the time between rounds among so many others: news mostly comes by pushes, and a round costs more the more
/// nodes there are to compare.
fn scaled(interval: Duration, others: usize) -> Duration {
    interval.saturating_mul(u32::try_from(others / OTHERS_PER_INTERVAL).unwrap_or(u32::MAX).max(1))
}

/// The time between rounds grows by one interval for each so many others.
const OTHERS_PER_INTERVAL: usize = 100;
