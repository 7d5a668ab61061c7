//! The plan: pure functions of the three planes, the same on every node to the bit.
//!
//! Input: what operators want, who is up, what nodes report. Output: who runs what, who owns which block of the
//! overlay, what names answer, where packets go. No clock, no randomness, no floats; each order ends in an id.

pub mod addresses;
pub mod names;
pub mod placement;
pub mod routes;
#[cfg(test)]
pub(crate) mod tests;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use self::addresses::Block;
use self::names::Names;
use self::routes::{PeerRoute, Routes};
use crate::hash;
use crate::id::{NodeId, ServiceId};
use crate::intent::Intent;
use crate::membership::Membership;
use crate::reports::Reports;

/// All that follows from the planes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which node runs each slot of each service; empty while no node is up.
    pub assignments: BTreeMap<(ServiceId, u32), NodeId>,
    /// What DNS answers.
    pub names: Names,
    /// Each member's block of the overlay, whether it is up or not.
    pub blocks: BTreeMap<NodeId, Block>,
    /// Of all the above: equal on two nodes if and only if they planned alike.
    pub digest: [u8; 32],
}

/// Computes the plan of the shoal whose CA has this fingerprint.
pub fn plan(shoal: &[u8; 32], intent: &Intent, membership: &Membership, reports: &Reports) -> Plan {
    let nodes: Vec<NodeId> =
        membership.members().values().filter(|member| member.state.is_up()).map(|member| member.id).collect();
    let services = intent.services().map(|service| (service.id, service.spec.replicas));
    let assignments = placement::place(services, nodes);
    let blocks = blocks(shoal, intent, membership);
    let names = names::names(intent, membership, reports, &blocks);
    let digest = digest(&assignments, &names, &blocks);
    Plan { assignments, names, blocks, digest }
}

/// Returns the overlay as this node should see it: its own block, and those of the others that are up.
pub fn routes(own: &NodeId, plan: &Plan, membership: &Membership) -> Routes {
    let others = membership.members().values().filter(|member| member.id != *own && member.state.is_up());
    let peers = others.filter_map(|member| {
        let block = *plan.blocks.get(&member.id)?;
        Some((member.id, PeerRoute { endpoint: member.meta.tunnel, block }))
    });
    let own = *plan.blocks.get(own).expect("this node is a member and so has a block");
    Routes { own, peers: peers.collect() }
}

/// Returns each member's block. A node that holds several IPv4 blocks uses the one with the least number.
fn blocks(shoal: &[u8; 32], intent: &Intent, membership: &Membership) -> BTreeMap<NodeId, Block> {
    let mut numbers: BTreeMap<NodeId, u16> = BTreeMap::new();
    for (number, node) in intent.blocks().filter(|(number, _)| *number < addresses::BLOCK_COUNT) {
        numbers.entry(node).and_modify(|least| *least = number.min(*least)).or_insert(number);
    }
    membership.members().keys().map(|id| (*id, Block::derive(shoal, id, numbers.get(id).copied()))).collect()
}

/// Returns the digest of a canonical encoding: each part in its own order, lengths before what varies.
fn digest(
    assignments: &BTreeMap<(ServiceId, u32), NodeId>,
    names: &Names,
    blocks: &BTreeMap<NodeId, Block>,
) -> [u8; 32] {
    let mut assigned = Vec::new();
    for ((service, slot), node) in assignments {
        assigned.extend(service.0);
        assigned.extend(slot.to_be_bytes());
        assigned.extend(node.0);
    }
    let mut named = Vec::new();
    for (name, answers) in &names.services {
        named.extend((name.len() as u64).to_be_bytes());
        named.extend(name.as_bytes());
        named.extend((answers.len() as u64).to_be_bytes());
        for address in answers {
            named.extend(address.v4.map_or([0; 4], |v4| v4.octets()));
            named.extend(address.v6.octets());
        }
    }
    let mut owned = Vec::new();
    for (node, block) in blocks {
        owned.extend(node.0);
        owned.extend(block.v4.map_or([0; 4], |v4| v4.octets()));
        owned.extend(block.v6.octets());
    }
    hash::digest("plan", &[&assigned, &named, &owned])
}
