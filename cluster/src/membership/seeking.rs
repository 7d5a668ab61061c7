//! Seeking: how a node finds those that may not know of it — to join, to bring back what is down, to compare lists.
//!
//! Input: time. Output: lists, digests and pings. A member that is down is tried for ever: a forgotten member that is
//! never redialled is how others lose nodes.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::Membership;
use super::member::MemberState;
use super::message::Body;
use super::suspicion::scaled;
use crate::clock::Instant;
use crate::id::NodeId;
use crate::mutation::{self, Mutation};

/// Members that a node without a place in the shoal turns to at a time.
const JOIN_FANOUT: usize = 3;

impl Membership {
    /// Tells whether this node has to look for the others: nobody has confirmed it, or nobody is up.
    pub(super) fn seeks(&self) -> bool {
        (!self.joined || self.up.is_empty()) && (!self.contacts.is_empty() || self.members.len() > 1)
    }

    /// Turns to those that may not know of this node: to join, to bring back what is down, to compare lists.
    pub(super) fn seek(&mut self, now: Instant) {
        if self.seeks() && self.timers.join <= now {
            self.timers.join = now + self.config.join_interval;
            let others = self.members.values().filter(|member| member.state != MemberState::Left);
            let mut candidates: BTreeSet<NodeId> = others.map(|member| member.id).collect();
            candidates.extend(&self.contacts);
            candidates.remove(&self.own.id);
            let candidates: Vec<NodeId> = candidates.into_iter().collect();
            for target in self.random.choose(&candidates, JOIN_FANOUT) {
                self.send_list(target);
            }
        }
        if self.timers.redial <= now {
            self.timers.redial = now + self.config.redial_interval;
            let down = self.members.values().filter(|member| member.state == MemberState::Down).map(|member| member.id);
            let unknown = self.contacts.iter().copied().filter(|id| !self.members.contains_key(id));
            let candidates: Vec<NodeId> = down.chain(unknown).collect();
            for target in self.random.choose(&candidates, 1) {
                self.redial(target);
            }
        }
        if self.timers.list <= now {
            self.timers.list = now + scaled(self.config.list_interval, self.members.len());
            for target in self.up.choose(&mut self.random, 1, None) {
                self.send_digest(target);
            }
        }
    }

    /// Asks a member that is not up whether it is after all, and to compare lists.
    pub(super) fn redial(&mut self, target: NodeId) {
        if mutation::on(Mutation::NoRedial) {
            return;
        }
        let number = self.probes.number();
        self.send(target, Body::Ping { number }, Vec::new());
        self.send_digest(target);
    }

    /// If this node itself slept (paused, suspended), gives all others the time back: they are not to blame.
    pub(super) fn excuse_own_sleep(&mut self, now: Instant) {
        let slept = now.since(self.poll_timeout());
        if slept <= self.config.probe_deadline {
            return;
        }
        self.health.worse(1);
        self.probes.extend(slept);
        self.timers.grace = self.timers.grace + slept;
        for suspicion in self.suspicions.values_mut() {
            suspicion.extend(slept);
        }
    }
}
