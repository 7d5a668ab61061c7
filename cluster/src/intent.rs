//! Intent: what operators want, one register per key, replicated to every node.
//!
//! Input: local writes, and entries and ranges from other nodes. Output: the services and blocks that count, and a
//! digest that is alike on all nodes with the same entries. A pushed entry may come in any order; a range vouches for
//! all writes in it, so that overwritten ones leave no holes. See `docs/protocol.md#intent`.

pub mod conflict;
pub mod constraint;
pub mod history;
pub mod job;
pub mod key;
pub mod name;
pub mod node;
pub mod object;
pub mod range;
pub mod service;
pub mod update;

mod digest;
mod entry;
mod grave;
mod served;
mod verdicts;
mod volume;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

pub use self::entry::Entry;

use self::conflict::Conflicted;
use self::digest::Sum;
use self::grave::Graves;
use self::key::{Key, Kind};
use self::name::Name;
use self::node::NodeIntent;
use self::served::Served;
use self::service::Service;
use crate::clock::HybridClock;
use crate::crdt::{Actor, Context, Dot, Register, Vector, Version};
use crate::id::{NodeId, ServiceId};
use crate::limits::{CLAIM_JUMP_MAX, INTENT_BYTES_MAX, SKEW_MAX_MS};
use crate::mutation::{self, Mutation};
use crate::wire;

/// What became of an entry from another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It was not known and is now: make it durable and pass it on.
    New,
    /// It was known, or is overwritten already.
    Known,
    /// It was not taken, with the reason. Nothing was changed.
    Refused(&'static str),
}

/// The intent plane of one node.
#[derive(Clone, Debug)]
pub struct Intent {
    actor: Actor,
    clock: HybridClock,
    registers: BTreeMap<Key, Register>,
    /// Where each actor's surviving writes are, by counter.
    dots: BTreeMap<Actor, BTreeMap<u64, Key>>,
    vector: Vector,
    served: Served,
    conflicted: Conflicted,
    graves: Graves,
    /// What was removed by tombstones that are forgotten, and more: all before by the same actors.
    collected: Context,
    sum: Sum,
    bytes: usize,
    changes: u64,
    /// As many of the changes as placement depends on, and addresses.
    declared: u64,
    claims: u64,
    verdicts: u64,
}

impl Intent {
    /// Makes an empty plane in which `actor` is this node.
    pub fn new(actor: Actor) -> Self {
        Self {
            actor,
            clock: HybridClock::default(),
            registers: BTreeMap::new(),
            dots: BTreeMap::new(),
            vector: Vector::default(),
            served: Served::default(),
            conflicted: Conflicted::default(),
            graves: Graves::default(),
            collected: Context::default(),
            sum: Sum::default(),
            bytes: 0,
            changes: 0,
            declared: 0,
            claims: 0,
            verdicts: 0,
        }
    }

    /// Returns every service that counts, in order of name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.served.services()
    }

    /// Returns how many services count.
    pub fn service_count(&self) -> usize {
        self.served.service_count()
    }

    /// Returns the service with this id.
    pub fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.served.service(id)
    }

    /// Returns the service with this name, in whatever case.
    pub fn service_named(&self, name: &Name) -> Option<&Service> {
        self.served.service_named(name.folded())
    }

    /// Returns every claimed IPv4 block with the node that holds it, in order of number. Of several nodes that
    /// claimed one at the same time the one whose key hashes lowest holds it.
    pub fn blocks(&self) -> impl Iterator<Item = (u16, NodeId)> {
        self.served.blocks()
    }

    /// Returns the number of the IPv4 block that a node uses: of several that it holds, the least.
    pub fn block_of(&self, node: &NodeId) -> Option<u16> {
        self.served.block_of(node)
    }

    /// Returns [`Self::block_of`] for every node that holds a block, in order of node.
    pub(crate) fn held_blocks(&self) -> impl Iterator<Item = (NodeId, u16)> {
        self.served.held()
    }

    /// Returns what operators want of nodes; nothing is there of those of which they have not said anything.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeIntent> {
        self.served.nodes()
    }

    /// Returns how many bytes all entries take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns a digest of all surviving versions with a value: equal if and only if they are.
    pub fn digest(&self) -> [u8; 32] {
        self.sum.digest()
    }

    /// Returns a number that grows with each change.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns a number that grows with each change of what operators want of services and nodes, and of where volumes
    /// live.
    pub fn declared(&self) -> u64 {
        self.declared
    }

    /// Returns a number that grows with each change of who holds which block.
    pub fn claims(&self) -> u64 {
        self.claims
    }

    /// Returns what is known here, by actor.
    pub fn vector(&self) -> &Vector {
        &self.vector
    }

    /// Returns this node as an actor.
    pub fn actor(&self) -> Actor {
        self.actor
    }

    /// Returns the dot that the next local write will have.
    pub fn next_dot(&self) -> Dot {
        let counter = self.vector.counter(&self.actor);
        let reused = mutation::on(Mutation::ReusedDot) && counter % 4 == 3;
        Dot::new(self.actor, counter.saturating_add(u64::from(!reused)))
    }

    /// Skips the dots of this node up to `theirs`, since somebody claims to know writes that far: this node's disk
    /// was set back, or the other is broken. Its next writes would count as known there. Returns the counter to make
    /// durable, if it skipped.
    pub fn outdo(&mut self, theirs: u64) -> Option<u64> {
        let own = self.vector.counter(&self.actor);
        if theirs <= own || theirs - own > CLAIM_JUMP_MAX {
            return None;
        }
        self.vector.advance(self.actor, own, theirs);
        self.changes += 1;
        Some(theirs)
    }

    /// Writes a value, or a tombstone, over all that is known of the key, and returns the entry to make durable
    /// and to pass on.
    pub fn write(&mut self, wall_ms: u64, key: Key, value: Option<Vec<u8>>) -> Entry {
        let version = Version {
            dot: self.next_dot(),
            context: self.registers.get(&key).map(Register::context).unwrap_or_default(),
            stamp: self.clock.tick(wall_ms),
            value,
            author: Vec::new(),
            signature: Vec::new(),
        };
        let entry = Entry { key, version };
        self.join(entry.clone());
        self.vector.note(entry.version.dot);
        entry
    }

    /// Writes a service under its name.
    pub fn write_service(&mut self, wall_ms: u64, service: &Service) -> Entry {
        self.write(wall_ms, Key::service(&service.spec.name), Some(wire::encode(service)))
    }

    /// Writes a tombstone over the service with this name.
    pub fn remove_service(&mut self, wall_ms: u64, name: &Name) -> Entry {
        self.write(wall_ms, Key::service(name), None)
    }

    /// Writes what operators want of a node.
    pub fn write_node(&mut self, wall_ms: u64, intent: &NodeIntent) -> Entry {
        self.write(wall_ms, Key::node(&intent.node), Some(wire::encode(intent)))
    }

    /// Claims the IPv4 block with this number for this node.
    pub fn claim_block(&mut self, wall_ms: u64, number: u16) -> Entry {
        self.write(wall_ms, Key::block(number), Some(wire::encode(&self.actor.node)))
    }

    /// Takes in an entry that came alone, in any order.
    pub fn learn(&mut self, wall_ms: u64, entry: Entry) -> Learned {
        let dot = entry.version.dot;
        if self.vector.knows(&dot) {
            return Learned::Known;
        }
        if !self.vector.has_room(&dot) {
            return Learned::Refused("too many entries of one author are ahead of their turn");
        }
        if dot.actor == self.actor {
            return Learned::Refused("an entry claims to be this node's own");
        }
        if dot.counter.saturating_sub(self.vector.counter(&dot.actor)) > CLAIM_JUMP_MAX {
            return Learned::Refused("an entry jumps too far");
        }
        if let Err(reason) = self.admit(wall_ms, &entry) {
            return Learned::Refused(reason);
        }
        if !(mutation::on(Mutation::DroppedDelta) && dot.counter.is_multiple_of(5)) {
            self.join(entry);
        }
        self.vector.note(dot);
        self.changes += 1;
        Learned::New
    }

    /// Takes in an entry of a node that knows the same writes and yet has other versions: whoever of the two
    /// dropped or kept one against the rules, afterwards both have what survives of both.
    pub fn repair(&mut self, wall_ms: u64, entry: &Entry) -> Learned {
        if let Err(reason) = self.admit(wall_ms, entry) {
            return Learned::Refused(reason);
        }
        let (digest, dot) = (self.sum, entry.version.dot);
        if dot.actor == self.actor {
            self.outdo(dot.counter);
        }
        self.join(entry.clone());
        self.vector.note(dot);
        self.changes += 1;
        if self.sum == digest { Learned::Known } else { Learned::New }
    }

    /// Takes in an entry that this node made durable before: it was admitted then.
    pub fn restore(&mut self, entry: Entry) {
        let (dot, stamp) = (entry.version.dot, entry.version.stamp);
        let observed = self.clock.observe(stamp, stamp.wall_ms, 0);
        debug_assert!(observed.is_ok(), "a stamp is never ahead of itself");
        self.join(entry);
        self.vector.note(dot);
        self.changes += 1;
    }

    /// Takes in what this node made durable of its vector.
    pub fn restore_vector(&mut self, actor: Actor, upto: u64) {
        self.vector.advance(actor, 0, upto);
        self.changes += 1;
    }

    /// Returns every surviving entry, in order of key.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.entries_from(None)
    }

    /// Returns every surviving entry whose key is `from` or comes after it, in order of key.
    pub fn entries_from(&self, from: Option<&Key>) -> impl Iterator<Item = Entry> {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        self.registers.range((from, Bound::Unbounded)).flat_map(|(key, register)| {
            register.versions().iter().map(|version| Entry { key: key.clone(), version: version.clone() })
        })
    }

    /// Returns the surviving versions of one key, latest stamp first.
    pub fn versions(&self, key: &Key) -> &[Version] {
        self.registers.get(key).map_or(&[], Register::versions)
    }

    /// Checks an entry from outside against every bound, and its stamp against this node's clock.
    fn admit(&mut self, wall_ms: u64, entry: &Entry) -> Result<(), &'static str> {
        if entry.version.check().is_err() || !entry.key.is_bounded() {
            return Err("an entry breaks a bound");
        }
        if self.bytes.saturating_add(entry.weight()) > INTENT_BYTES_MAX {
            return Err("the intent plane is full");
        }
        self.clock
            .observe(entry.version.stamp, wall_ms, SKEW_MAX_MS)
            .map_err(|_| "an entry's stamp is too far ahead of this node's clock")
    }

    /// Joins one version into its register and keeps every index in step.
    fn join(&mut self, entry: Entry) {
        let Entry { key, version } = entry;
        let (dot, weight) = (version.dot, version.weight() + key.name.len());
        let register = self.registers.entry(key.clone()).or_default();
        let joined = register.join(version);
        if joined.added {
            self.sum.add(&key, register.versions().iter().find(|held| held.dot == dot));
            self.dots.entry(dot.actor).or_default().insert(dot.counter, key.clone());
            self.bytes += weight;
        }
        for left in &joined.removed {
            self.sum.remove(&key, left);
            self.bytes -= left.weight() + key.name.len();
            if left.dot != dot || !joined.added {
                unindex(&mut self.dots, &left.dot);
            }
        }
        if joined.added || !joined.removed.is_empty() {
            self.refresh(&key);
        }
    }

    /// Drops versions without joining others, and keeps every index in step.
    fn forget(&mut self, key: &Key, versions: &[Version]) {
        let Some(register) = self.registers.get_mut(key) else { return };
        for version in versions {
            register.forget(&version.dot);
            self.sum.remove(key, version);
            self.bytes -= version.weight() + key.name.len();
            unindex(&mut self.dots, &version.dot);
        }
        self.refresh(key);
        if self.versions(key).is_empty() {
            self.registers.remove(key);
        }
    }

    /// Lets what follows from a register follow it.
    fn refresh(&mut self, key: &Key) {
        let Some(register) = self.registers.get(key) else { return };
        let own = |version: &Version| version.dot.actor.node == self.actor.node;
        let unheard = mutation::on(Mutation::VerdictNotJoined) && key.kind() == Some(Kind::Verdict);
        if !unheard || register.versions().iter().any(own) {
            self.served.refresh(key, register);
        }
        self.conflicted.refresh(key, register);
        self.graves.refresh(key, register);
        self.changes += 1;
        match key.kind() {
            Some(Kind::Service | Kind::Node | Kind::Volume | Kind::Completions) => self.declared += 1,
            Some(Kind::Block) => self.claims += 1,
            Some(Kind::Verdict) => self.verdicts += 1,
            Some(Kind::Network | Kind::Secret | Kind::Config | Kind::Part) | None => {}
        }
    }
}

/// Forgets where a write is that is no more.
fn unindex(dots: &mut BTreeMap<Actor, BTreeMap<u64, Key>>, dot: &Dot) {
    let emptied = dots.get_mut(&dot.actor).is_some_and(|counters| {
        counters.remove(&dot.counter);
        counters.is_empty()
    });
    if emptied {
        dots.remove(&dot.actor);
    }
}
