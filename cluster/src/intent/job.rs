//! Jobs: which slots of a job have done their work, as the nodes on which they did it say.
//!
//! Input: the register of each node and job. Output: the slots that are done. Each node writes its own register only, so that
//! nothing conflicts; what counts is the union. See `docs/protocol.md#jobs`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::key::Key;
use super::service::{Mode, Service};
use super::{Entry, Intent};
use crate::crdt::Version;
use crate::id::{NodeId, ServiceId};
use crate::limits::REPLICAS_MAX;
use crate::wire;

/// Numbers of slots, 64 to a word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSet(BTreeMap<u32, u64>);

/// The slots of a job that did their work on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completions {
    /// The job.
    pub service: ServiceId,
    /// The node, which wrote this.
    pub node: NodeId,
    /// Of which revision the tasks were; those of another do not count.
    pub revision: u64,
    /// The slots.
    pub slots: SlotSet,
}

impl SlotSet {
    /// Adds a slot.
    pub fn insert(&mut self, slot: u32) {
        *self.0.entry(slot / u64::BITS).or_default() |= 1 << (slot % u64::BITS);
    }

    /// Tells whether a slot is among them.
    pub fn contains(&self, slot: u32) -> bool {
        self.0.get(&(slot / u64::BITS)).is_some_and(|word| word & (1 << (slot % u64::BITS)) != 0)
    }

    /// Returns how many of them are less than `end`.
    pub fn below(&self, end: u32) -> u32 {
        let (word, bits) = (end / u64::BITS, end % u64::BITS);
        let whole = self.0.range(..word).map(|(_, word)| word.count_ones()).sum::<u32>();
        let part = self.0.get(&word).map_or(0, |word| (word & ((1 << bits) - 1)).count_ones());
        whole + part
    }

    /// Returns how many there are.
    pub fn count(&self) -> u32 {
        self.0.values().map(|word| word.count_ones()).sum()
    }

    fn add(&mut self, others: &Self) {
        for (index, word) in &others.0 {
            *self.0.entry(*index).or_default() |= word;
        }
    }
}

impl Completions {
    /// Returns what a version says; none if it is a tombstone, was not written by the node that it is of, or is larger than
    /// any job.
    pub(super) fn of(key: &Key, version: &Version) -> Option<Self> {
        let found: Self = wire::decode(version.value.as_ref()?).ok()?;
        let bounded = found.slots.0.len() <= (REPLICAS_MAX / u64::BITS) as usize + 1;
        let own = version.dot.actor.node == found.node && Key::completions(&found.service, &found.node) == *key;
        (own && bounded).then_some(found)
    }
}

impl Intent {
    /// Returns the slots of a job that have done their work.
    pub fn completed(&self, service: &Service) -> SlotSet {
        let mut done = SlotSet::default();
        for one in self.served.completions(&service.id).filter(|one| one.revision == service.revision) {
            done.add(&one.slots);
        }
        done
    }

    /// Tells whether a slot of a job has done its work.
    pub fn is_completed(&self, service: &Service, slot: u32) -> bool {
        let mut known = self.served.completions(&service.id).filter(|one| one.revision == service.revision);
        known.any(|one| one.slots.contains(slot))
    }

    /// Tells whether a replicated job has no slot left to run.
    pub fn is_done(&self, service: &Service) -> bool {
        matches!(service.spec.mode, Mode::ReplicatedJob { .. })
            && self.completed(service).below(service.spec.replicas) >= service.spec.replicas
    }

    /// Returns the services that are jobs.
    pub fn jobs(&self) -> impl Iterator<Item = &Service> {
        self.services().filter(|service| service.spec.mode.is_job())
    }

    /// Returns the services of which this node has said something that are no more.
    pub fn outlived(&self) -> Vec<ServiceId> {
        let said = self.served.completed_at(&self.actor.node);
        said.filter(|service| self.service(service).is_none()).collect()
    }

    /// Adds that a slot of a job did its work on this node.
    pub fn complete(&mut self, wall_ms: u64, service: &ServiceId, revision: u64, slot: u32) -> Entry {
        let node = self.actor.node;
        let mut said =
            self.served.completions(service).find(|one| one.node == node && one.revision == revision).cloned();
        let said =
            said.get_or_insert_with(|| Completions { service: *service, node, revision, slots: SlotSet::default() });
        said.slots.insert(slot);
        let value = wire::encode(said);
        self.write(wall_ms, Key::completions(service, &node), Some(value))
    }

    /// Writes tombstones over what nodes said of a job: all, or this one.
    pub fn forget_completions(&mut self, wall_ms: u64, service: &ServiceId, of: Option<&NodeId>) -> Vec<Entry> {
        let nodes = self.served.completions(service).map(|one| one.node).filter(|node| of.is_none_or(|of| of == node));
        let nodes: Vec<NodeId> = nodes.collect();
        nodes.iter().map(|node| self.write(wall_ms, Key::completions(service, node), None)).collect()
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_slots_is_a_set(slots in prop::collection::vec(any::<u32>(), 0..50), end in any::<u32>()) {
            let (mut set, mut oracle) = (SlotSet::default(), BTreeSet::new());
            for slot in slots {
                set.insert(slot);
                oracle.insert(slot);
                prop_assert!(set.contains(slot));
            }
            prop_assert_eq!(set.count() as usize, oracle.len());
            prop_assert_eq!(set.below(end) as usize, oracle.range(..end).count());
        }
    }
}
