//! The plan: pure functions of the three planes, the same on every node to the bit.
//!
//! Input: what operators want, who is up, what nodes report. Output: who runs what, who owns which block of the
//! overlay, what names answer, where packets go. No clock, no randomness, no floats; each order ends in an id.

pub mod addresses;
pub mod forecast;
mod inputs;
pub mod names;
pub mod placement;
pub mod rollout;
pub mod routes;
#[cfg(test)]
pub(crate) mod tests;
pub mod volumes;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use self::addresses::{Block, Overlay};
pub(crate) use self::inputs::{capacity, reserved};
use self::names::Names;
use self::placement::{Assignments, Inputs, Placed};
use self::routes::{PeerRoute, Routes};
use crate::hash::{self, Sum};
use crate::id::{NodeId, ServiceId};
use crate::intent::Intent;
use crate::intent::node::Availability;
use crate::membership::Membership;
use crate::mutation::{self, Mutation};
use crate::reports::Reports;
use crate::wire;

/// All that follows from the planes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Which node runs each slot of each service; empty while no node is up.
    pub assignments: Assignments,
    /// What DNS answers.
    pub names: Names,
    /// Each member's block of the overlay, whether it is up or not.
    pub blocks: BTreeMap<NodeId, Block>,
    /// By which rules all this was computed: the newest that every member which is up can compute.
    pub version: u16,
    /// Of all the above: equal on two nodes if and only if they planned alike.
    pub digest: [u8; 32],
    /// Of assignments and blocks alone, and of blocks alone.
    placed: [u8; 32],
    owned: Sum,
    /// What `placed` was when `digest` was computed.
    digested: [u8; 32],
    /// What the assignments were made of, and how.
    wanted: Placed,
}

impl Plan {
    /// Returns what the assignments were computed from: all that a forecast needs.
    pub fn inputs(&self) -> &Arc<Inputs> {
        self.wanted.inputs()
    }

    /// Tells whether a node meets a service's constraints; of those that are not known here it is assumed.
    pub fn may_run(&self, node: &NodeId, service: &ServiceId) -> bool {
        let Inputs { services, nodes, .. } = self.inputs().as_ref();
        let service = services.binary_search_by_key(service, |service| service.id).ok().map(|place| &services[place]);
        let node = nodes.binary_search_by_key(node, |node| node.id).ok().map(|place| &nodes[place]);
        service.zip(node).is_none_or(|(service, node)| service.may_run_on(node))
    }
}

/// The newest rules that this code can compute.
pub const VERSION: u16 = 1;

/// Returns the rules in force: all members compute by those of the oldest binary among them, so that they agree while
/// nodes are updated one by one.
fn version(membership: &Membership) -> u16 {
    let up = membership.members().values().filter(|member| member.state.is_up());
    up.map(|member| member.meta.plan_version).fold(VERSION, u16::min)
}

/// Computes the plan of the shoal whose CA has this fingerprint.
pub fn plan(shoal: &[u8; 32], intent: &Intent, membership: &Membership, reports: &Reports) -> Plan {
    follow(Plan::default(), shoal, intent, membership, reports)
}

/// Computes the plan from an earlier one, of whatever planes: the same as [`plan`], but what reads parts of the planes
/// that are still the same is taken over.
pub fn follow(earlier: Plan, shoal: &[u8; 32], intent: &Intent, membership: &Membership, reports: &Reports) -> Plan {
    let mut wanted = earlier.wanted;
    let mut inputs = inputs::inputs(intent, membership, reports);
    inputs.nodes.drain(..own_order(intent).min(inputs.nodes.len()));
    let same = !wanted.follow(inputs);
    with_blocks(Plan { wanted, ..earlier }, same, shoal, intent, membership, reports)
}

/// Computes the plan from an earlier one after a change of the claims of blocks, and of reports.
pub fn follow_claims(
    earlier: Plan,
    shoal: &[u8; 32],
    intent: &Intent,
    membership: &Membership,
    reports: &Reports,
) -> Plan {
    with_blocks(earlier, true, shoal, intent, membership, reports)
}

/// Completes a plan whose placement is up to date; `same` says that it is that of the earlier plan.
fn with_blocks(
    mut plan: Plan,
    same: bool,
    shoal: &[u8; 32],
    intent: &Intent,
    membership: &Membership,
    reports: &Reports,
) -> Plan {
    let (owned, version) = (plan.owned, version(membership));
    follow_blocks(&mut plan, shoal, intent, membership);
    let first = plan.placed == [0; 32];
    if !same || owned != plan.owned || version != plan.version || first {
        plan.placed = digest_placed(version, &plan.wanted.digest(), &plan.owned);
    }
    if (!same && !mutation::on(Mutation::AssignmentsKept)) || first {
        plan.assignments = plan.wanted.assignments().clone();
    }
    plan.version = version;
    with_names(plan, intent, membership, reports)
}

/// Returns by how many members a plan differs that depends on who computes it: none, but for the mutation.
fn own_order(intent: &Intent) -> usize {
    usize::from(mutation::on(Mutation::PlanByOwner) && intent.actor().node.0[0] % 2 == 1)
}

/// Computes the plan from an earlier one after a change of the reports alone, while no node [holds any](holds_any):
/// names follow from them.
pub fn follow_reports(earlier: Plan, intent: &Intent, membership: &Membership, reports: &Reports) -> Plan {
    with_names(earlier, intent, membership, reports)
}

/// Tells whether some node is paused, so that it holds what it runs: placement depends on reports then.
pub fn holds_any(intent: &Intent) -> bool {
    intent.nodes().values().any(|node| node.spec.availability == Availability::Pause)
}

/// Completes a plan whose assignments and blocks are up to date.
fn with_names(plan: Plan, intent: &Intent, membership: &Membership, reports: &Reports) -> Plan {
    let names = names::names(intent, membership, reports, &plan.blocks);
    if plan.digested == plan.placed && names == plan.names {
        return plan;
    }
    let digest = digest(&plan.placed, &names);
    Plan { names, digest, digested: plan.placed, ..plan }
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

/// Gives each member its block. A node that holds several IPv4 blocks uses the one with the least number. Members, blocks and
/// claims are in order of id and are walked side by side; what is the same as before costs no hash.
fn follow_blocks(plan: &mut Plan, shoal: &[u8; 32], intent: &Intent, membership: &Membership) {
    let mut before = plan.blocks.iter().map(|(id, block)| (*id, *block)).peekable();
    let mut numbers = intent.held_blocks().peekable();
    let mut changes: Vec<(NodeId, Option<Block>, Option<Block>)> = Vec::new();
    for id in membership.members().keys() {
        while let Some((gone, block)) = before.next_if(|(other, _)| other < id) {
            changes.push((gone, Some(block), None));
        }
        while numbers.next_if(|(other, _)| other < id).is_some() {}
        let number = numbers.next_if(|(other, _)| other == id).map(|(_, number)| number);
        let held = before.next_if(|(other, _)| other == id).map(|(_, block)| block);
        let block = match held {
            Some(held) => held.renumbered(number),
            None => Overlay::new(shoal).block(id, number),
        };
        if held != Some(block) {
            changes.push((*id, held, Some(block)));
        }
    }
    changes.extend(before.map(|(gone, block)| (gone, Some(block), None)));
    for (id, before, now) in changes {
        if let Some(before) = before {
            plan.owned.remove(&digest_block(&id, &before));
        }
        match now {
            Some(now) => {
                plan.owned.add(&digest_block(&id, &now));
                plan.blocks.insert(id, now);
            }
            None => {
                plan.blocks.remove(&id);
            }
        }
    }
}

/// Returns the digest of who owns what, for one node.
fn digest_block(node: &NodeId, block: &Block) -> [u8; 32] {
    let v4 = block.v4.map_or([0; 4], |v4| v4.octets());
    hash::digest("owned", &[&node.0, &v4, &block.v6.octets()])
}

/// Returns the digest of assignments and blocks.
fn digest_placed(version: u16, assigned: &[u8; 32], owned: &Sum) -> [u8; 32] {
    hash::digest("placed", &[&version.to_be_bytes(), assigned, &owned.digest("owned-all")])
}

/// Returns the digest of the whole plan, from that of its other parts and the names.
fn digest(placed: &[u8; 32], names: &Names) -> [u8; 32] {
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
    named.extend(wire::encode(&names.networks));
    hash::digest("plan", &[placed, &named])
}
