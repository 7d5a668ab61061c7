//! Keeping: writes on other nodes' disks before they count as safe, and tombstones until nobody needs them.
//!
//! Input: what members say they stored or know, and time. Output: acknowledgements, repeated pushes, and records of what
//! is forgotten. See `docs/protocol.md#durability` and `docs/protocol.md#tombstones`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use crate::Cluster;
use crate::clock::Instant;
use crate::crdt::Dot;
use crate::id::NodeId;
use crate::intent::key::Key;
use crate::limits::BATCH_BYTES_MAX;
use crate::membership::member::{Member, MemberState, Role};
use crate::mutation::{self, Mutation};
use crate::record::Record;
use crate::sync::message::{ActorKnown, Gone, Known, Message, Span};
use crate::sync::rounds::Settling;

/// Parts of the horizon between two looks for tombstones to forget.
const LOOKS: u32 = 16;

impl Cluster {
    /// Returns the number of this node's last write of intent in this run, 0 if there was none: see [`Self::copies`].
    pub fn written(&self) -> u64 {
        self.intent.vector().counter(&self.intent.actor())
    }

    /// Returns on how many other nodes' disks this node's write with this number is, as far as is known here.
    pub fn copies(&self, write: u64) -> usize {
        if mutation::on(Mutation::CopiesOverstated) { self.others_up_count() } else { self.copies.count(write) }
    }

    /// Returns how many other members are up, which might store a write.
    pub fn others_up_count(&self) -> usize {
        self.membership.members().values().filter(|member| member.state.is_up()).count().saturating_sub(1)
    }

    /// Returns how many other members there are, up or not, that have not left.
    pub fn others_count(&self) -> usize {
        let stays = |member: &&Member| member.id != self.own && member.state != MemberState::Left;
        self.membership.members().values().filter(stays).count()
    }

    /// Tells the author of writes that came from itself that they are durable here; to be called after they were
    /// recorded.
    pub(crate) fn confirm_stored(&mut self, to: NodeId, dots: &[Dot]) {
        let actors: BTreeSet<_> = dots.iter().map(|dot| dot.actor).filter(|actor| actor.node == to).collect();
        for actor in actors {
            let vector = self.intent.vector();
            let pending = vector.pending().find(|(ahead, _)| *ahead == actor);
            let ahead = pending.map(|(_, ahead)| ahead.clone()).unwrap_or_default();
            let known = ActorKnown { actor, upto: vector.counter(&actor), ahead };
            self.send(to, &Message::Stored(known));
        }
    }

    /// Takes in which of this node's writes a member knows: it made them durable before it said so.
    pub(crate) fn note_stored(&mut self, from: NodeId, known: &ActorKnown) {
        let own = self.intent.actor();
        let is_member = self.membership.members().contains_key(&from);
        if known.actor == own && known.upto <= self.written() && is_member {
            self.copies.note(from, known);
        }
    }

    /// Takes in what a member told of its knowledge.
    pub(crate) fn note_known(&mut self, from: NodeId, known: &Known) {
        for actor in &known.actors {
            self.note_stored(from, actor);
        }
        let news = self.acknowledged.of(&from) < self.intent.last_grave();
        if news && known.span == Span::ALL && known.parts.is_all() {
            let theirs: BTreeMap<_, _> = known.actors.iter().map(|known| (known.actor, known)).collect();
            let knows = |dot: &Dot| {
                let known = theirs.get(&dot.actor);
                known.is_some_and(|known| known.upto >= dot.counter || known.ahead.contains(&dot.counter))
            };
            let upto = self.intent.graves_known(self.acknowledged.of(&from), knows);
            self.acknowledged.note(from, upto);
        }
    }

    /// Takes in that a member knows the very writes that this node knows.
    pub(crate) fn note_same_writes(&mut self, from: NodeId) {
        self.acknowledged.note(from, self.intent.last_grave());
        let known = ActorKnown { actor: self.intent.actor(), upto: self.written(), ahead: BTreeSet::new() };
        self.note_stored(from, &known);
    }

    /// Tells some others again what is on no other disk yet.
    pub(crate) fn repeat_writes(&mut self) {
        if !self.copies.is_due(self.now.mono) {
            return;
        }
        let (own, upto) = (self.intent.actor(), self.copies.upto());
        if let Some((range, _)) = self.intent.range(own, upto, &BTreeSet::new(), BATCH_BYTES_MAX) {
            let hops = self.hops();
            for entry in range.entries {
                self.rumours.entry(hops, None, entry);
            }
        }
    }

    /// Forgets the tombstones that all members know and that are older than the horizon.
    pub(crate) fn collect(&mut self) {
        let (now, horizon) = (self.now, self.config.tombstone_horizon);
        if self.collect_at > now.mono {
            return;
        }
        self.collect_at = now.mono + horizon / LOOKS;
        if mutation::on(Mutation::NeverCollected) {
            return;
        }
        let own = self.own;
        let others = self.membership.members().values().filter(|member| member.id != own);
        let others = others.map(|member| (member.id, member.state.is_up()));
        if mutation::on(Mutation::CollectedUnheard) {
            self.intent.collect(self.intent.last_grave(), now.wall_ms);
        }
        let upto = self.acknowledged.by_all(now.mono, horizon, self.intent.last_grave(), others);
        let horizon_ms = u64::try_from(horizon.as_millis()).unwrap_or(u64::MAX);
        let Some(before_ms) = now.wall_ms.checked_sub(horizon_ms) else { return };
        if let Some(collected) = self.intent.collect(upto, before_ms) {
            self.persist(&Record::Collected(collected.iter().collect()));
        }
    }

    /// Returns when [`Self::repeat_writes`] or [`Self::collect`] has something to do.
    pub(crate) fn keeping_deadline(&self) -> Instant {
        let collect = if self.intent.grave_count() > 0 { self.collect_at } else { Instant::from_micros(u64::MAX) };
        self.copies.deadline().map_or(collect, |repeat| repeat.min(collect))
    }

    /// Tells a member that was away for long what it holds that was removed since.
    pub(crate) fn tell_gone(&mut self, to: NodeId, writes: Vec<(Key, Dot)>) {
        if !writes.is_empty() {
            self.send(to, &Message::Gone(Gone { writes }));
        }
    }

    /// Drops what was removed while this node was away. Only managers may say so, as only they may write intent.
    pub(crate) fn receive_gone(&mut self, from: NodeId, gone: Gone) {
        let sender = self.membership.members().get(&from);
        if sender.is_none_or(|sender| sender.meta.role != Role::Manager || !sender.state.is_up()) {
            self.dropped(from, "only a manager may say what was removed");
            return;
        }
        let mut dropped = gone.writes;
        dropped.retain(|(key, dot)| self.intent.vector().knows(dot) && self.intent.drop_gone(key, dot));
        if !dropped.is_empty() {
            self.persist(&Record::Gone(dropped));
            if self.rounds.settling() != Settling::Settled {
                self.catch_up(from);
            }
        }
    }
}

/// How long tombstones are kept by default: three days, so that a node may be off for a weekend and come back as if it
/// had not been.
pub(crate) const TOMBSTONE_HORIZON: Duration = Duration::from_secs(3 * 24 * 3_600);
