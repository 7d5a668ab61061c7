//! Placement: which node runs each slot, by rendezvous hashing with bounded loads.
//!
//! Input: services with their numbers of replicas, and the nodes that are up. Output: slot → node. Every slot ranks the
//! nodes by hash and takes the first whose load does not exceed its share of the slots up to this one, so that the first
//! n slots lie on n different nodes, the next n again, and a service that is scaled moves nothing that runs. When a node
//! leaves or comes, its own slots move and a few more. Services know nothing of each other. Slots beyond what all nodes
//! together may report have no node.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::hash;
use crate::id::{NodeId, ServiceId};
use crate::limits::TASKS_PER_NODE_MAX;

/// Assigns each slot of each service to a node; nothing if there is no node, or all have [`TASKS_PER_NODE_MAX`] of it. The order of the input does not matter.
pub fn place(
    services: impl IntoIterator<Item = (ServiceId, u32)>,
    nodes: impl IntoIterator<Item = NodeId>,
) -> BTreeMap<(ServiceId, u32), NodeId> {
    let nodes: BTreeSet<NodeId> = nodes.into_iter().collect();
    let mut assignments = BTreeMap::new();
    for (service, replicas) in services {
        let mut candidates: Vec<Candidate> = nodes.iter().map(|node| Candidate::new(&service, *node)).collect();
        for slot in 1..=replicas {
            let Some(node) = choose(&mut candidates, slot) else { break };
            assignments.insert((service, slot), node);
        }
    }
    assignments
}

/// One node, seen from one service.
struct Candidate {
    node: NodeId,
    seed: u64,
    load: u32,
}

impl Candidate {
    fn new(service: &ServiceId, node: NodeId) -> Self {
        Self { node, seed: hash::rank64("placement", &[&service.0, &node.0]), load: 0 }
    }

    /// Returns how much `slot` wants this node; ties go to the greater id.
    fn rank(&self, slot: u32) -> (u64, NodeId) {
        (mix(self.seed.wrapping_add(mix(u64::from(slot)))), self.node)
    }
}

/// Gives `slot` to the node it ranks highest of those below their share of the slots up to it.
fn choose(candidates: &mut [Candidate], slot: u32) -> Option<NodeId> {
    let share = slot.div_ceil(u32::try_from(candidates.len()).ok().filter(|count| *count > 0)?);
    if share as usize > TASKS_PER_NODE_MAX {
        return None;
    }
    let open = candidates.iter_mut().filter(|candidate| candidate.load < share);
    let chosen = open.max_by_key(|candidate| candidate.rank(slot))?;
    chosen.load += 1;
    Some(chosen.node)
}

/// Scrambles 64 bits (the finalizer of SplitMix64), so that slots need no SHA-256 of their own.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;

    fn services() -> impl Strategy<Value = BTreeMap<ServiceId, u32>> {
        prop::collection::btree_map(any::<[u8; 16]>().prop_map(ServiceId), 0..40_u32, 0..6)
    }

    fn nodes() -> impl Strategy<Value = BTreeSet<NodeId>> {
        prop::collection::btree_set(any::<[u8; 32]>().prop_map(NodeId), 0..9)
    }

    /// The rule said again, slowly: a slot takes the first node of its own sorted ranking that has fewer of the earlier
    /// slots than a fair share of the slots up to it, rounded up.
    fn oracle(service: ServiceId, slot: u32, nodes: &BTreeSet<NodeId>) -> NodeId {
        let earlier: Vec<NodeId> = (1..slot).map(|earlier| oracle(service, earlier, nodes)).collect();
        let mut ranking: Vec<NodeId> = nodes.iter().copied().collect();
        ranking.sort_by_key(|node| {
            let seed = hash::rank64("placement", &[&service.0, &node.0]);
            core::cmp::Reverse((mix(seed.wrapping_add(mix(u64::from(slot)))), *node))
        });
        let fits = |node: &NodeId| {
            let load = earlier.iter().filter(|holder| *holder == node).count();
            load * nodes.len() < slot as usize
        };
        ranking.into_iter().find(fits).expect("the share exceeds the mean")
    }

    proptest! {
        #[test]
        fn every_slot_has_a_node_and_loads_differ_by_at_most_one(services in services(), nodes in nodes()) {
            let placed = place(services.clone(), nodes.clone());
            let wanted = services.iter().flat_map(|(id, replicas)| (1..=*replicas).map(|slot| (*id, slot)));
            let wanted: BTreeSet<(ServiceId, u32)> = wanted.filter(|_| !nodes.is_empty()).collect();
            prop_assert_eq!(placed.keys().copied().collect::<BTreeSet<_>>(), wanted);
            for service in services.keys() {
                let load = |node| placed.iter().filter(|((of, _), at)| of == service && **at == node).count();
                let loads: Vec<usize> = nodes.iter().map(|node| load(*node)).collect();
                let spread = loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0);
                prop_assert!(spread <= 1, "{loads:?}");
            }
        }

        #[test]
        fn the_order_of_the_input_does_not_matter(services in services(), nodes in nodes()) {
            let forwards = place(services.clone(), nodes.clone());
            let backwards = place(services.into_iter().rev(), nodes.into_iter().rev());
            prop_assert_eq!(forwards, backwards);
        }

        #[test]
        fn scaling_moves_nothing_that_runs(service in any::<[u8; 16]>(), few in 0..30_u32, more in 0..30_u32, nodes in nodes()) {
            let service = ServiceId(service);
            let before = place([(service, few)], nodes.clone());
            let after = place([(service, few + more)], nodes);
            prop_assert!(before.iter().all(|(slot, node)| after.get(slot) == Some(node)));
        }

        #[test]
        fn the_slow_rule_agrees(service in any::<[u8; 16]>(), nodes in prop::collection::btree_set(any::<[u8; 32]>().prop_map(NodeId), 1..5)) {
            let service = ServiceId(service);
            for ((_, slot), node) in place([(service, 8)], nodes.clone()) {
                prop_assert_eq!(node, oracle(service, slot, &nodes));
            }
        }
    }

    #[test]
    fn absurd_numbers_of_replicas_are_bounded_by_what_nodes_can_report() {
        let nodes = [NodeId([1; 32]), NodeId([2; 32])];
        let placed = place([(ServiceId([1; 16]), u32::MAX)], nodes);
        assert_eq!(placed.len(), 2 * TASKS_PER_NODE_MAX);
    }

    #[test]
    fn few_slots_move_when_a_node_leaves() {
        let (mut moved, mut needed) = (0, 0);
        for round in 0..200_u8 {
            let nodes: BTreeSet<NodeId> = (0..3).map(|number| NodeId([number; 32])).collect();
            let service = ServiceId([round; 16]);
            let before = place([(service, 6)], nodes.clone());
            let gone = NodeId([round % 3; 32]);
            let after = place([(service, 6)], nodes.into_iter().filter(|node| *node != gone));
            moved += before.iter().filter(|(slot, node)| after[slot] != **node).count();
            needed += before.values().filter(|node| **node == gone).count();
        }
        assert!(moved * 10 <= needed * 17, "{moved} of {needed} needed");
    }
}
