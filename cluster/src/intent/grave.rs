//! Graves: registers that hold nothing but tombstones, and when they may be forgotten.
//!
//! Input: changes of registers; which graves each member has acknowledged. Output: the registers to forget. A tombstone
//! is needed only by those who may still hold what it removed. What is forgotten is summed up in one context, so that a
//! node that was away for longer does not bring it back. See `docs/protocol.md#tombstones`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Intent;
use super::key::Key;
use crate::crdt::{Context, Dot, Register};

/// Registers of tombstones, in the order in which they came to be so here.
#[derive(Clone, Debug, Default)]
pub(super) struct Graves {
    last: u64,
    by_order: BTreeMap<u64, Key>,
    orders: BTreeMap<Key, u64>,
}

impl Graves {
    /// Follows a change of one register.
    pub(super) fn refresh(&mut self, key: &Key, register: &Register) {
        if let Some(order) = self.orders.remove(key) {
            self.by_order.remove(&order);
        }
        let versions = register.versions();
        if !versions.is_empty() && versions.iter().all(|version| version.value.is_none()) {
            self.last += 1;
            self.by_order.insert(self.last, key.clone());
            self.orders.insert(key.clone(), self.last);
        }
    }
}

impl Intent {
    /// Returns how many registers hold nothing but tombstones.
    pub fn grave_count(&self) -> usize {
        self.graves.by_order.len()
    }

    /// Returns the number of the last grave, in this node's own order.
    pub fn last_grave(&self) -> u64 {
        self.graves.last
    }

    /// Returns up to which grave, beginning after `after`, somebody knows all of them for whom `knows` holds.
    pub fn graves_known(&self, after: u64, knows: impl Fn(&Dot) -> bool) -> u64 {
        for (order, key) in self.graves.by_order.range(after.saturating_add(1)..) {
            if !self.versions(key).iter().all(|version| knows(&version.dot)) {
                return order - 1;
            }
        }
        self.graves.last
    }

    /// Forgets the graves up to number `upto` whose tombstones were written at `before_ms` or earlier. Returns what
    /// was forgotten in all so far, to be made durable, if anything was.
    pub fn collect(&mut self, upto: u64, before_ms: u64) -> Option<Context> {
        let old =
            |intent: &Self, key: &Key| intent.versions(key).iter().all(|version| version.stamp.wall_ms <= before_ms);
        let graves = self.graves.by_order.range(..=upto).map(|(_, key)| key.clone());
        let due: Vec<Key> = graves.filter(|key| old(self, key)).collect();
        for key in &due {
            self.bury(key);
        }
        (!due.is_empty()).then(|| self.collected.clone())
    }

    /// Returns the writes of which some may have been forgotten with the tombstones that removed them.
    pub fn collected(&self) -> &Context {
        &self.collected
    }

    /// Takes in what another node has forgotten, or this one before a restart. Tells whether it was news.
    pub fn note_collected(&mut self, collected: &Context) -> bool {
        let before = self.collected.clone();
        self.collected.merge(collected);
        self.collected != before
    }

    /// Tells whether a write that is known and yet not here was removed, and its tombstone forgotten.
    pub fn is_gone(&self, key: &Key, dot: &Dot) -> bool {
        self.collected.covers(dot)
            && self.vector.knows(dot)
            && !self.versions(key).iter().any(|version| version.dot == *dot)
    }

    /// Drops one version that others have removed and forgotten. Tells whether it was here.
    pub fn drop_gone(&mut self, key: &Key, dot: &Dot) -> bool {
        let Some(version) = self.versions(key).iter().find(|version| version.dot == *dot).cloned() else {
            return false;
        };
        self.collected.add(*dot);
        self.forget(key, &[version]);
        true
    }

    fn bury(&mut self, key: &Key) {
        let versions = self.versions(key).to_vec();
        for version in &versions {
            self.collected.merge(&version.context);
            self.collected.add(version.dot);
        }
        self.forget(key, &versions);
    }
}
