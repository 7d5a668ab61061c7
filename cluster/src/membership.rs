//! Membership: which nodes are in and which are up (SWIM, Das et al. 2002, with Lifeguard, Dadgar et al. 2018).
//!
//! Input: messages of other members, what the transport says of connections, time. Output: messages, members to make
//! durable, events. What a member's state means, who enters it and what ends it:
//!
//! | state | entered by | ended by |
//! |---|---|---|
//! | alive | the member's own word, with a greater incarnation than whatever was said before | any below |
//! | suspect | a probe that failed, here or elsewhere; a verdict of down elsewhere about a member that is alive here | its refutation (alive with a greater incarnation), or the suspicion's deadline ([`suspicion`]) |
//! | down | the deadline here; it is short once others hold the member down | its refutation; it is redialled for ever, each `redial_interval` |
//! | left | the member's own word | its return with a greater incarnation |
//!
//! Timers: each `probe_interval` one member is pinged, in turn two neighbours on the ring of ids and a random member;
//! after `probe_timeout` others are asked to ping it; after `probe_deadline` it is suspect. Some who hear of that ask it
//! too. A lost connection asks all of that at once, with `suspicion_timeout_evidence`. Changes are told by
//! [`dissemination`], what that misses is mended by comparing member lists ([`list`]). A node that has not been confirmed
//! by any member, or sees nobody up, sends its list to some each `join_interval`.
//!
//! A node's own record is made durable before it is told, so that a restart begins above it. Nothing here is shared with
//! the other planes. See `docs/protocol.md#membership`.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::clock::{Instant, NEVER};
use crate::config::MembershipConfig;
use crate::id::NodeId;
use crate::io::Event;
use crate::limits::NODES_MAX;
use crate::mutation::{self, Mutation};
use crate::seed::Stream;

mod dissemination;
mod health;
mod learn;
mod list;
mod majority;
pub mod member;
pub mod message;
mod probe;
mod probing;
mod roster;
mod seeking;
mod slowness;
mod suspicion;
#[cfg(test)]
mod tests;

use dissemination::{FANOUT, Updates};
use health::Health;
use majority::Reach;
use member::{Contacts, Member, MemberState, NodeMeta};
pub use message::MembershipMessage;
use message::{Body, Update};
use probe::Probes;
use roster::Roster;
use slowness::Slowness;
use suspicion::Suspicion;

/// Members that hear a goodbye directly.
const LEAVE_FANOUT: usize = 8;

/// What membership wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipAction {
    /// Send a message, best effort.
    Send {
        /// To whom.
        to: NodeId,
        /// The message.
        message: MembershipMessage,
    },
    /// Make this member durable, in place of its older record, before anything later is sent.
    Persist(Member),
    /// Tell operators.
    Notify(Event),
}

/// This node's view of all members, and its part in the protocol.
#[derive(Clone, Debug)]
pub struct Membership {
    own: Member,
    /// All, `own` included.
    members: BTreeMap<NodeId, Member>,
    /// The others that are up.
    up: Roster,
    config: MembershipConfig,
    random: Stream,
    contacts: BTreeSet<NodeId>,
    /// Whether any member has answered with its list.
    joined: bool,
    /// Whether anything was heard from any member in this run.
    heard: bool,
    /// Restored members thought to be up, from which nothing was heard yet.
    unconfirmed: BTreeSet<NodeId>,
    probes: Probes,
    suspicions: BTreeMap<NodeId, Suspicion>,
    slowness: Slowness,
    updates: Updates,
    health: Health,
    reach: Reach,
    timers: Timers,
    changes: u64,
    /// As many of the changes as a plan depends on.
    standing: u64,
    /// The digest of the member list, and the number of changes for which it holds.
    digest: Option<(u64, [u8; 32])>,
    actions: VecDeque<MembershipAction>,
}

/// The periodic deadlines; the others are kept with what they belong to.
#[derive(Clone, Copy, Debug)]
struct Timers {
    probe: Instant,
    join: Instant,
    redial: Instant,
    list: Instant,
    /// When unconfirmed members become suspects.
    grace: Instant,
}

impl Membership {
    /// Makes the membership of a node that starts with this incarnation, which must exceed all that it ever used.
    pub fn new(
        own: NodeId,
        meta: NodeMeta,
        incarnation: u64,
        contacts: Contacts,
        config: MembershipConfig,
        mut random: Stream,
        now: Instant,
    ) -> Self {
        let record = Member { id: own, incarnation, state: MemberState::Alive, meta };
        let contacts = contacts.into_iter().map(|(id, _)| id).filter(|id| *id != own).take(NODES_MAX).collect();
        // Nodes that start together spread out over the interval.
        let offset = Duration::from_micros(random.below(config.probe_interval.as_micros() as u64 + 1));
        let timers = Timers {
            probe: now + offset,
            join: now,
            redial: now + config.redial_interval + offset,
            list: now + config.list_interval + offset,
            grace: now + config.suspicion_timeout,
        };
        let mut membership = Self {
            own: record.clone(),
            members: BTreeMap::from([(own, record)]),
            up: Roster::default(),
            config,
            random,
            contacts,
            joined: false,
            heard: false,
            unconfirmed: BTreeSet::new(),
            probes: Probes::default(),
            suspicions: BTreeMap::new(),
            slowness: Slowness::default(),
            updates: Updates::default(),
            health: Health::default(),
            reach: Reach::default(),
            timers,
            changes: 1,
            standing: 1,
            digest: None,
            actions: VecDeque::new(),
        };
        membership.tell_own(now);
        membership
    }

    /// Takes in a member that an earlier run made durable; to be called before the first message. Those that were up
    /// count as up until the suspicion timeout says otherwise.
    pub fn restore(&mut self, member: Member) {
        if member.id == self.own.id {
            if member.incarnation >= self.own.incarnation {
                self.own.incarnation = member.incarnation.saturating_add(1);
                self.own.meta.counts |= member.meta.counts;
                self.tell_own(self.timers.join);
            }
            return;
        }
        if self.members.len() >= NODES_MAX && !self.members.contains_key(&member.id) {
            return;
        }
        let mut member = member;
        self.up.remove(&member.id);
        self.unconfirmed.remove(&member.id);
        if member.state.is_up() {
            member.state = MemberState::Alive;
            self.up.insert(member.id);
            self.unconfirmed.insert(member.id);
        }
        self.members.insert(member.id, member);
        (self.changes, self.standing) = (self.changes + 1, self.standing + 1);
    }

    /// Takes in a message of a peer whose identity is proven.
    pub fn handle(&mut self, now: Instant, from: NodeId, message: MembershipMessage) {
        if from == self.own.id {
            return;
        }
        if let Some(reason) = message.flaw() {
            self.actions.push_back(MembershipAction::Notify(Event::MessageDropped { from, reason }));
            return;
        }
        self.heard = true;
        self.unconfirmed.remove(&from);
        let mut wrong = false;
        for update in message.updates {
            wrong |= self.learn(now, from, update, true);
        }
        // Whoever holds a wrong record of this node hears the right one with the answer.
        let first: Vec<Update> = if wrong { [self.own_update()].into() } else { Vec::new() };
        match message.body {
            Body::Ping { number } => {
                if !self.members.contains_key(&from) {
                    self.send_digest(from);
                }
                self.send(from, Body::Ack { number }, first);
            }
            Body::Ack { number } => self.acknowledged(now, from, number),
            Body::PingRequest { number, target } => self.ping_for(now, from, number, target),
            Body::PingReply { number, reached } => self.replied(number, reached),
            Body::Digest { digest } => {
                if digest != self.digest() {
                    self.send_list(from);
                }
            }
            Body::List { after, until, members, answer } => self.compare(now, from, (after, until), members, answer),
            Body::Gossip if wrong => self.send(from, Body::Gossip, first),
            Body::Gossip => {}
        }
        self.gossip_if_due(now);
    }

    /// Does what is due. Early or twice is harmless.
    pub fn timeout(&mut self, now: Instant) {
        if self.own.state.is_up() {
            self.excuse_own_sleep(now);
            self.check_probes(now);
            self.check_suspicions(now);
            self.begin_probe(now);
            self.count_if_due(now);
            self.seek(now);
        }
        self.gossip_if_due(now);
    }

    /// Takes in that a connection to `peer` is usable. If it is not thought to be up, it is told at once.
    pub fn peer_connected(&mut self, now: Instant, peer: NodeId) {
        if self.up.contains(&peer) || !self.own.state.is_up() {
            return;
        }
        if !self.joined && self.contacts.contains(&peer) {
            self.send_list(peer);
        } else if self.members.contains_key(&peer) {
            self.redial(peer);
        }
        self.gossip_if_due(now);
    }

    /// Takes in that the last connection to `peer` is gone or was refused: evidence, which makes for a probe at once.
    pub fn peer_lost(&mut self, now: Instant, peer: NodeId) {
        if self.own.state.is_up() && self.up.contains(&peer) {
            self.probe_on_evidence(now, peer);
            self.gossip_if_due(now);
        }
    }

    /// Tells the others that this node will leave soon.
    pub fn hand_over(&mut self, now: Instant) {
        self.own.meta.leaving = true;
        self.own.incarnation = self.own.incarnation.saturating_add(1);
        self.tell_own(now);
    }

    /// Says goodbye to several members; they tell the others. Nothing is probed afterwards.
    pub fn leave(&mut self, now: Instant) {
        self.own.meta.leaving = true;
        self.own.state = MemberState::Left;
        self.tell_own(now);
        let targets = self.up.choose(&mut self.random, LEAVE_FANOUT, None);
        let first: Vec<Update> = [self.own_update()].into();
        for target in targets {
            self.send(target, Body::Gossip, first.clone());
        }
    }

    /// Returns what to do next.
    pub fn poll(&mut self) -> Option<MembershipAction> {
        self.actions.pop_front()
    }

    /// Returns when [`Self::timeout`] is due.
    pub fn poll_timeout(&self) -> Instant {
        let gossip = self.updates.due().unwrap_or(NEVER);
        if !self.own.state.is_up() {
            return gossip;
        }
        let lost = mutation::on(Mutation::LostSuspicionTimer);
        let suspicion = self.suspicions.values().map(Suspicion::deadline).min().filter(|_| !lost);
        let grace = (!self.unconfirmed.is_empty()).then_some(self.timers.grace);
        let join = self.seeks().then_some(self.timers.join);
        let Timers { probe, redial, list, .. } = self.timers;
        let others = [suspicion, grace, join, self.probes.deadline()].into_iter().flatten();
        others.chain([gossip, probe, redial, list]).min().unwrap_or(NEVER)
    }

    /// Returns this node's own record.
    pub fn own(&self) -> &Member {
        &self.own
    }

    /// Returns all members, this node included.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// Returns the other members that are up, in order of id.
    pub fn others_up(&self) -> &[NodeId] {
        self.up.all()
    }

    /// Tells whether a node may have tasks: it is a member, and alive or suspect.
    pub fn is_up(&self, id: &NodeId) -> bool {
        self.members.get(id).is_some_and(|member| member.state.is_up())
    }

    /// Returns a number that grows whenever [`Self::members`] changes.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns a number that grows whenever a member comes or goes, or says other things of itself: suspicions and
    /// incarnations, which are most of the changes, do not matter to a plan.
    pub fn standing(&self) -> u64 {
        self.standing
    }

    /// Sends a message with what the receiver should hear of itself, `first`, and what is to be told anyway.
    fn send(&mut self, to: NodeId, body: Body, first: Vec<Update>) {
        let mut updates = self.about(&to);
        updates.extend(first);
        let updates = self.updates.take(updates, 1, self.members.len());
        self.actions.push_back(MembershipAction::Send { to, message: MembershipMessage { body, updates } });
    }

    /// Returns what a member should hear of itself: that it is thought to be anything but well, so that it refutes
    /// (Lifeguard's buddy system, for every message).
    fn about(&self, id: &NodeId) -> Vec<Update> {
        let unwell = self.members.get(id).filter(|member| member.state != MemberState::Alive);
        unwell.map(|member| Update { member: member.clone(), accuser: self.own.id }).into_iter().collect()
    }

    /// Sends the fresh changes to a few members, if it is time.
    fn gossip_if_due(&mut self, now: Instant) {
        if self.updates.due().is_none_or(|due| due > now) {
            return;
        }
        let targets = self.up.choose(&mut self.random, FANOUT, None);
        let updates = self.updates.take(Vec::new(), targets.len().max(1), self.members.len());
        for to in targets {
            let message = MembershipMessage { body: Body::Gossip, updates: updates.clone() };
            self.actions.push_back(MembershipAction::Send { to, message });
        }
        self.updates.sent(now);
    }
}
