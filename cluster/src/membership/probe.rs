//! Probing: whom to ask next, who has not answered yet, and for whom others asked us to ask.
//!
//! A probe begins with a ping. Without an answer by `ask_at` others are asked to ping (SWIM §3.1), without one by
//! `fails_at` it has failed. A probe begun on evidence of the transport asks the others at once and fails sooner.
//! Output: targets and verdicts; the messages are made by the parent.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::roster::Roster;
use crate::clock::Instant;
use crate::id::NodeId;
use crate::seed::Stream;

/// Members after a node on the ring of ids that it watches.
const NEIGHBOURS: usize = 2;
/// Pings after which the same neighbour is asked again: one goes to a random member.
pub(super) const TURNS: u32 = NEIGHBOURS as u32 + 1;

/// Pings on behalf of others at one time; more are not done, which the asker takes as a missing reply.
const RELAYS_MAX: usize = 256;
/// Failed probes that are remembered.
const OVERDUE_MAX: usize = 256;

/// All that is being asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    order: Vec<NodeId>,
    /// Counts the probes whose turn it was.
    turns: usize,
    counter: u64,
    pending: BTreeMap<NodeId, Probe>,
    /// The last probes that failed, by number: their answers may still come.
    overdue: BTreeMap<u64, NodeId>,
    relays: BTreeMap<u64, Relay>,
}

/// One member that was pinged and has not answered yet.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    /// Comes back in its answer.
    pub(super) number: u64,
    /// When it began.
    pub(super) sent: Instant,
    /// When others are asked; absent once they were.
    pub(super) ask_at: Option<Instant>,
    /// When it has failed.
    pub(super) fails_at: Instant,
    /// Why it was begun.
    pub(super) cause: Cause,
    /// How many others were asked.
    pub(super) asked: usize,
    /// How many of them said that they got no answer either.
    pub(super) denied: usize,
}

/// Why a member is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was its turn.
    Turn,
    /// Another suspects it; only this node's own ping counts.
    Opinion,
    /// The transport has evidence against it.
    Evidence,
}

/// A ping on behalf of `origin`.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    /// Who asked.
    pub(super) origin: NodeId,
    /// The asker's number.
    pub(super) number: u64,
    target: NodeId,
    expires_at: Instant,
}

impl Probes {
    /// Returns a number for a ping, never used before in this run.
    pub(super) fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Returns the next member to probe: two neighbours of `own` on the ring, then a random one; each is random once
    /// per shuffled round.
    pub(super) fn next(&mut self, random: &mut Stream, own: &NodeId, up: &Roster) -> Option<NodeId> {
        self.turns = (self.turns + 1) % (NEIGHBOURS + 1);
        if self.turns < NEIGHBOURS {
            return up.neighbour(own, self.turns);
        }
        loop {
            if self.order.is_empty() {
                self.order = up.all().to_vec();
                random.shuffle(&mut self.order);
            }
            let target = self.order.pop()?;
            if up.contains(&target) {
                return Some(target);
            }
        }
    }

    /// Puts a new member at a random place of the present round.
    pub(super) fn insert(&mut self, random: &mut Stream, id: NodeId) {
        if !self.order.contains(&id) {
            let place = random.below(self.order.len() as u64 + 1) as usize;
            self.order.insert(place, id);
        }
    }

    /// Begins a probe.
    pub(super) fn begin(&mut self, target: NodeId, probe: Probe) {
        self.pending.insert(target, probe);
    }

    /// Returns the probe of this member, if one is under way.
    pub(super) fn of(&mut self, target: &NodeId) -> Option<&mut Probe> {
        self.pending.get_mut(target)
    }

    /// Ends the probe of `target` if the number is its own, and returns it.
    pub(super) fn answered(&mut self, target: &NodeId, number: u64) -> Option<Probe> {
        self.pending.get(target).filter(|probe| probe.number == number)?;
        self.pending.remove(target)
    }

    /// Tells whether this is the answer to a probe of `target` that has failed.
    pub(super) fn is_overdue(&mut self, target: &NodeId, number: u64) -> bool {
        self.overdue.get(&number) == Some(target) && self.overdue.remove(&number).is_some()
    }

    /// Returns the member that is being probed with this number.
    pub(super) fn target(&self, number: u64) -> Option<NodeId> {
        self.pending.iter().find(|(_, probe)| probe.number == number).map(|(id, _)| *id)
    }

    /// Forgets a probe: the member is no longer thought to be up.
    pub(super) fn drop(&mut self, target: &NodeId) {
        self.pending.remove(target);
    }

    /// Returns the members whose other probers should be asked now, and notes that they were.
    pub(super) fn unasked(&mut self, now: Instant) -> Vec<(NodeId, u64)> {
        let due = self.pending.iter_mut().filter(|(_, probe)| probe.ask_at.is_some_and(|at| at <= now));
        due.map(|(id, probe)| {
            probe.ask_at = None;
            (*id, probe.number)
        })
        .collect()
    }

    /// Takes out the probes that have failed.
    pub(super) fn failed(&mut self, now: Instant) -> Vec<(NodeId, Probe)> {
        let due: Vec<NodeId> =
            self.pending.iter().filter(|(_, probe)| probe.fails_at <= now).map(|(id, _)| *id).collect();
        let failed: Vec<(NodeId, Probe)> =
            due.into_iter().filter_map(|id| self.pending.remove(&id).map(|probe| (id, probe))).collect();
        self.overdue.extend(failed.iter().map(|(id, probe)| (probe.number, *id)));
        while self.overdue.len() > OVERDUE_MAX {
            self.overdue.pop_first();
        }
        failed
    }

    /// Notes a ping on behalf of another; returns its number, or none if there are too many.
    pub(super) fn relay(&mut self, origin: NodeId, number: u64, target: NodeId, expires_at: Instant) -> Option<u64> {
        if self.relays.len() >= RELAYS_MAX {
            return None;
        }
        let own = self.number();
        self.relays.insert(own, Relay { origin, number, target, expires_at });
        Some(own)
    }

    /// Takes out the relay that this answer of `target` ends.
    pub(super) fn relayed(&mut self, target: &NodeId, number: u64) -> Option<Relay> {
        self.relays.get(&number).filter(|relay| relay.target == *target)?;
        self.relays.remove(&number)
    }

    /// Takes out the relays whose target has not answered.
    pub(super) fn unanswered(&mut self, now: Instant) -> Vec<Relay> {
        let due: Vec<u64> =
            self.relays.iter().filter(|(_, relay)| relay.expires_at <= now).map(|(number, _)| *number).collect();
        due.into_iter().filter_map(|number| self.relays.remove(&number)).collect()
    }

    /// Gives back time in which this node could not hear answers.
    pub(super) fn extend(&mut self, slept: Duration) {
        for probe in self.pending.values_mut() {
            probe.ask_at = probe.ask_at.map(|at| at + slept);
            probe.fails_at = probe.fails_at + slept;
        }
    }

    /// Returns the next deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let probes =
            self.pending.values().map(|probe| probe.ask_at.map_or(probe.fails_at, |at| at.min(probe.fails_at)));
        probes.chain(self.relays.values().map(|relay| relay.expires_at)).min()
    }
}
