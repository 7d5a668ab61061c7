//! Learning: how what is said of members becomes what this node thinks of them, and how it answers for itself.

use super::member::{Member, MemberState};
use super::message::{Body, Update, believable};
use super::suspicion::Suspicion;
use super::{Membership, MembershipAction};
use crate::clock::Instant;
use crate::id::NodeId;
use crate::io::Event;
use crate::limits::NODES_MAX;
use crate::mutation::{self, Mutation};

/// A refutation is late after this part of the suspicion timeout.
const LATE_SHARE: u32 = 4;

impl Membership {
    /// Takes in what `from` says of a member; `spread` says whether others should hear news of it.
    /// Returns whether `from` holds a record of this node that is not its present one.
    pub(super) fn learn(&mut self, now: Instant, from: NodeId, update: Update, spread: bool) -> bool {
        let Update { member, accuser } = update;
        if member.id == self.own.id {
            return self.answer_for_self(now, &member);
        }
        let known = self.members.get(&member.id);
        if !believable(&member, known.map_or(0, |known| known.incarnation)) {
            return false;
        }
        match known {
            None if self.members.len() >= NODES_MAX => {}
            None => self.accept(now, from, member, accuser, spread),
            Some(known) if member.supersedes(known) => {
                if known.state.is_up() && member.state == MemberState::Down {
                    self.doubt(now, member);
                } else {
                    self.accept(now, from, member, accuser, spread);
                }
            }
            Some(known) if known.state == MemberState::Suspect && member == *known => {
                self.confirm(now, member, accuser)
            }
            Some(_) => {}
        }
        false
    }

    /// Takes in a record of this node. Raises the incarnation over a wrong one, which refutes it everywhere.
    fn answer_for_self(&mut self, now: Instant, claim: &Member) -> bool {
        if !believable(claim, self.own.incarnation) {
            return false;
        }
        if claim.supersedes(&self.own) && !mutation::on(Mutation::MissingRefutation) {
            self.own.incarnation = claim.incarnation.saturating_add(1);
            self.tell_own(now);
            if claim.state != MemberState::Alive {
                self.health.worse(1);
                self.act(MembershipAction::Notify(Event::Refuted(self.own.incarnation)));
            }
        }
        *claim != self.own
    }

    /// Takes over this node's own changed record: makes it durable, then tells it.
    pub(super) fn tell_own(&mut self, now: Instant) {
        let before = self.members.insert(self.own.id, self.own.clone());
        self.count_change(before.as_ref(), &self.own.clone());
        if !mutation::on(Mutation::IncarnationNotPersisted) {
            self.act(MembershipAction::Persist(self.own.clone()));
        }
        self.updates.push(now, self.own_update());
    }

    /// Returns this node's own record as an update.
    pub(super) fn own_update(&self) -> Update {
        Update { member: self.own.clone(), accuser: self.own.id }
    }

    fn count_change(&mut self, before: Option<&Member>, now: &Member) {
        self.changes += 1;
        let same = |before: &Member| before.state.is_up() == now.state.is_up() && before.meta == now.meta;
        self.standing += u64::from(!before.is_some_and(same));
    }

    /// Suspects a member that did not answer this node; one that is suspect already is accused by one more.
    pub(super) fn accuse(&mut self, now: Instant, id: NodeId, evidence: bool) {
        let Some(known) = self.members.get(&id) else { return };
        let mut member = known.clone();
        match known.state {
            MemberState::Alive => {
                member.state = MemberState::Suspect;
                self.accept(now, self.own.id, member, self.own.id, true);
                self.warn(id);
            }
            MemberState::Suspect => self.confirm(now, member, self.own.id),
            MemberState::Down | MemberState::Left => return,
        }
        if evidence {
            self.hasten(now, &id);
        }
    }

    /// Takes in that others hold a member down that is up here. Nobody is declared down before it was suspect here for
    /// the time that evidence leaves: after a partition, both sides' verdicts meet nodes that can refute them.
    fn doubt(&mut self, now: Instant, mut member: Member) {
        let id = member.id;
        let suspected = self
            .members
            .get(&id)
            .is_some_and(|known| known.state == MemberState::Suspect && known.incarnation == member.incarnation);
        if !suspected {
            member.state = MemberState::Suspect;
            self.accept(now, self.own.id, member, self.own.id, true);
            self.warn(id);
        }
        let Some(suspicion) = self.suspicions.get_mut(&id) else { return };
        suspicion.hasten(suspicion.started() + self.config.suspicion_timeout_evidence);
        if suspicion.deadline() <= now {
            self.declare_down(now, id);
        }
    }

    /// Ends a suspicion that was not refuted in time.
    pub(super) fn declare_down(&mut self, now: Instant, id: NodeId) {
        if let Some(mut member) = self.members.get(&id).cloned() {
            member.state = MemberState::Down;
            self.accept(now, self.own.id, member, self.own.id, true);
        }
    }

    /// Takes a member that is down for one that has left, since an operator says so. It comes back as one that left would.
    /// It has handed nothing over, which its `leaving` tells.
    pub fn remove(&mut self, now: Instant, id: NodeId) {
        if let Some(mut member) = self.members.get(&id).filter(|member| member.state == MemberState::Down).cloned() {
            (member.state, member.meta.leaving) = (MemberState::Left, false);
            self.accept(now, self.own.id, member, self.own.id, true);
        }
    }

    /// Tells a suspect so at once.
    fn warn(&mut self, id: NodeId) {
        let number = self.probes.number();
        self.send(id, Body::Ping { number }, [].into());
    }

    /// Leaves a suspect only the time that evidence leaves.
    fn hasten(&mut self, now: Instant, id: &NodeId) {
        if let Some(suspicion) = self.suspicions.get_mut(id) {
            suspicion.hasten(now + self.config.suspicion_timeout_evidence);
        }
    }

    /// Takes in one more accuser of a suspect, and tells it on if that is news.
    fn confirm(&mut self, now: Instant, member: Member, accuser: NodeId) {
        if self.suspicions.get_mut(&member.id).is_some_and(|suspicion| suspicion.confirm(accuser)) {
            self.updates.push(now, Update { member, accuser });
        }
    }

    /// Takes in that a suspect refuted.
    fn note_refutation(&mut self, now: Instant, id: NodeId, suspicion: &Suspicion) {
        if now.since(suspicion.started()) > self.config.suspicion_timeout / LATE_SHARE {
            self.note_slow(now, id);
        }
    }

    /// Remembers a member that was late to answer or to refute: it is slow, not dead. If it is suspect, it has as much
    /// time as it would have had.
    pub(super) fn note_slow(&mut self, now: Instant, id: NodeId) {
        let known = self.leniency(now, &id) > 1;
        if self.members.contains_key(&id) {
            self.slowness.late(now, id);
        }
        if let Some(suspicion) = self.suspicions.get_mut(&id).filter(|_| !known) {
            suspicion.relax(self.config.slow_factor);
        }
    }

    /// Returns how many times as long a member has that is known to be slow; 1 for others.
    pub(super) fn leniency(&mut self, now: Instant, id: &NodeId) -> u32 {
        if self.slowness.is_slow(now, id) { self.config.slow_factor } else { 1 }
    }

    /// Takes over a member's record that supersedes the one known; all that follows from it is done here.
    pub(super) fn accept(&mut self, now: Instant, from: NodeId, member: Member, accuser: NodeId, spread: bool) {
        let id = member.id;
        let known = self.members.insert(id, member.clone());
        let before = known.as_ref().map(|known| known.state);
        let was_up = before.is_some_and(MemberState::is_up);
        self.count_change(known.as_ref(), &member);
        if from != self.own.id {
            self.unconfirmed.remove(&id);
        }
        let ended = self.suspicions.remove(&id);
        if let Some(suspicion) = ended.filter(|_| member.state == MemberState::Alive) {
            self.note_refutation(now, id, &suspicion);
        }
        if member.state.is_up() && !was_up {
            self.up.insert(id);
            self.probes.insert(&mut self.random, id);
            self.act(MembershipAction::Notify(Event::NodeUp(id)));
        } else if was_up && !member.state.is_up() {
            self.up.remove(&id);
            self.probes.drop(&id);
        }
        match member.state {
            MemberState::Alive => {}
            MemberState::Suspect => {
                let timeout = self.config.suspicion_timeout.saturating_mul(self.leniency(now, &id));
                // A node that has heard of nobody waits for no confirmations.
                let nodes = if self.heard { self.up.len() + 1 } else { 1 };
                let suspicion = Suspicion::new(now, accuser, timeout, self.health, nodes);
                self.suspicions.insert(id, suspicion);
                if accuser != self.own.id && before == Some(MemberState::Alive) {
                    self.give_opinion(now, id);
                }
                if before != Some(MemberState::Suspect) {
                    self.act(MembershipAction::Notify(Event::NodeSuspect(id)));
                }
            }
            MemberState::Down if was_up => self.act(MembershipAction::Notify(Event::NodeDown(id))),
            MemberState::Left if before != Some(MemberState::Left) => {
                self.act(MembershipAction::Notify(Event::NodeLeft(id)));
            }
            MemberState::Down | MemberState::Left => {}
        }
        // Suspicion and incarnations of others are not worth a write: a restart learns them again.
        let durable = |member: &Member| (member.state.is_up(), member.state == MemberState::Left);
        if known.is_none_or(|known| durable(&known) != durable(&member) || known.meta != member.meta) {
            self.act(MembershipAction::Persist(member.clone()));
        }
        let returned = !was_up && member.state.is_up() && from == id;
        if spread {
            self.updates.push(now, Update { member, accuser });
        }
        if returned {
            // It may bring a whole side of a partition with it.
            self.send_digest(id);
        }
    }
}
