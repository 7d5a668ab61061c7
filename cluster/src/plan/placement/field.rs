//! The field: the nodes as placement sees them, and the pools of nodes that services may use.
//!
//! Services with the same constraints share a pool. A spread preference divides a pool by the values of a label, one
//! pool for each value, and the next preference divides those.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::input::{Amounts, NodeInput, ServiceInput};
use super::number::{floor_to, node_count};
use super::ring::Ring;
use crate::hash;
use crate::id::NodeId;
use crate::intent::constraint::{Constraint, Spread};

/// Fewest and most points of a node on the ring.
const POINTS: (u64, u64) = (8, 256);
/// A pool smaller than this part of the field has a ring of its own, which is faster and says the same.
const NARROW: usize = 16;

/// A node as placement sees it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) hash: u64,
    /// How many points it has on a ring: what it can carry, beside others.
    pub(super) points: u32,
    pub(super) capacity: Amounts,
    /// Whether it takes tasks.
    pub(super) open: bool,
    /// The pools that it is in, as long as it is open.
    pub(super) pools: Vec<u32>,
}

/// What all nodes that take tasks have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) nano_cpus: u128,
    pub(super) memory_bytes: u128,
    pub(super) size: u64,
    pub(super) nodes: u64,
}

/// Some of the nodes.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    members: Vec<bool>,
    /// In order.
    pub(super) nodes: Vec<u16>,
    ring: Option<Ring>,
    pub(super) points: u64,
}

impl Pool {
    /// Returns the number of nodes, rounded so that it rarely changes.
    pub(super) fn count(&self) -> u32 {
        node_count(self.nodes.len())
    }

    /// Returns the points of all nodes, rounded down to seven binary digits.
    pub(super) fn weight(&self) -> u64 {
        floor_to(7, self.points).max(1)
    }

    pub(super) fn holds(&self, node: u16) -> bool {
        self.members[usize::from(node)]
    }
}

/// A pool, and the parts of it over which tasks are spread evenly.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) pool: usize,
    /// Hash of the label's value, and the part with that value; in order of value.
    pub(super) parts: Vec<(u64, usize)>,
}

/// What the loss of a node changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Closed {
    /// Whether some pool has no node any more.
    pub(super) is_emptied: bool,
    /// The pools whose rounded points changed.
    pub(super) reweighted: Vec<usize>,
    /// The pools whose rounded number of nodes changed.
    pub(super) recounted: BTreeSet<usize>,
}

type RootKey = (Vec<Constraint>, Vec<(String, String)>, Option<Amounts>);

/// All nodes, and the pools of all services.
#[derive(Clone, Debug, Default)]
pub(super) struct Field {
    pub(super) nodes: Vec<Node>,
    ring: Ring,
    pub(super) pools: Vec<Pool>,
    pub(super) branches: Vec<Branch>,
    pub(super) total: Total,
}

impl Field {
    /// Makes the field; returns with it the branch of each service. The hashes of nodes that were seen before are taken
    /// over.
    pub(super) fn new(nodes: &[NodeInput], services: &[ServiceInput], before: &[Node]) -> (Self, Vec<usize>) {
        let nodes_seen: Vec<Node> = nodes.iter().map(|node| Node::new(node, before)).collect();
        let open = nodes_seen.iter().enumerate().filter(|(_, node)| node.open);
        let ring = Ring::new(open.map(|(index, node)| (index as u16, node.hash, node.points)));
        let mut total = Total::default();
        nodes_seen.iter().filter(|node| node.open).for_each(|node| total.add(&node.capacity));
        let mut field = Self { nodes: nodes_seen, ring, pools: Vec::new(), branches: Vec::new(), total };
        let least = field.least_capacity();
        let mut roots: BTreeMap<(RootKey, Vec<Spread>), usize> = BTreeMap::new();
        let mut pools: BTreeMap<RootKey, usize> = BTreeMap::new();
        let branches = services.iter().map(|service| {
            let root = root_key(service, &least);
            let key = (root.clone(), service.spread.clone());
            if let Some(known) = roots.get(&key) {
                return *known;
            }
            let pool = *pools.entry(root).or_insert_with(|| {
                let eligible = |node: &(usize, &NodeInput)| {
                    node.1.active && service.may_run_on(node.1) && service.reserved.fits(&node.1.capacity)
                };
                let members = nodes.iter().enumerate().filter(eligible).map(|(index, _)| index as u16).collect();
                field.add_pool(members)
            });
            let branch = field.add_branch(pool, nodes, &service.spread);
            roots.insert(key, branch);
            branch
        });
        let branches = branches.collect();
        (field, branches)
    }

    fn least_capacity(&self) -> Amounts {
        let open = || self.nodes.iter().filter(|node| node.open).map(|node| node.capacity);
        Amounts {
            nano_cpus: open().map(|capacity| capacity.nano_cpus).min().unwrap_or(0),
            memory_bytes: open().map(|capacity| capacity.memory_bytes).min().unwrap_or(0),
        }
    }

    fn add_pool(&mut self, nodes: Vec<u16>) -> usize {
        let mut members = alloc::vec![false; self.nodes.len()];
        nodes.iter().for_each(|node| members[usize::from(*node)] = true);
        let of = |node: &u16| &self.nodes[usize::from(*node)];
        let narrow = nodes.len() * NARROW < self.nodes.len();
        let ring = narrow.then(|| Ring::new(nodes.iter().map(|node| (*node, of(node).hash, of(node).points))));
        let points = nodes.iter().map(|node| u64::from(of(node).points)).sum();
        let index = self.pools.len() as u32;
        nodes.iter().for_each(|node| self.nodes[usize::from(*node)].pools.push(index));
        self.pools.push(Pool { members, nodes, ring, points });
        self.pools.len() - 1
    }

    fn add_branch(&mut self, pool: usize, inputs: &[NodeInput], spread: &[Spread]) -> usize {
        let mut parts = Vec::new();
        if let Some((first, rest)) = spread.split_first() {
            let mut values: BTreeMap<String, Vec<u16>> = BTreeMap::new();
            for node in &self.pools[pool].nodes {
                let value = inputs[usize::from(*node)].attribute(first.attribute());
                values.entry(value).or_default().push(*node);
            }
            for (value, nodes) in values {
                let pool = self.add_pool(nodes);
                let branch = self.add_branch(pool, inputs, rest);
                parts.push((hash::rank64("placement-part", &[value.as_bytes()]), branch));
            }
        }
        self.branches.push(Branch { pool, parts });
        self.branches.len() - 1
    }

    /// Takes a node out of every pool, and returns which rounded numbers that changed.
    pub(super) fn close(&mut self, node: u16) -> Closed {
        let closing = &mut self.nodes[usize::from(node)];
        let (points, pools) = (u64::from(closing.points), core::mem::take(&mut closing.pools));
        closing.open = false;
        self.total.remove(&closing.capacity);
        let mut closed = Closed::default();
        for index in pools.into_iter().map(|pool| pool as usize) {
            let pool = &mut self.pools[index];
            let before = (pool.count(), pool.weight());
            pool.members[usize::from(node)] = false;
            if let Ok(place) = pool.nodes.binary_search(&node) {
                pool.nodes.remove(place);
            }
            pool.points -= points;
            closed.is_emptied |= pool.nodes.is_empty();
            if before.1 != pool.weight() {
                closed.reweighted.push(index);
            }
            if before.0 != pool.count() {
                closed.recounted.insert(index);
            }
        }
        closed
    }

    /// Tells whether some part of a branch that is not divided further is one of these pools.
    pub(super) fn has_leaf(&self, branch: usize, pools: &BTreeSet<usize>) -> bool {
        let branch = &self.branches[branch];
        match branch.parts.as_slice() {
            [] => pools.contains(&branch.pool),
            parts => parts.iter().any(|(_, part)| self.has_leaf(*part, pools)),
        }
    }

    /// Returns the node of a pool that `hash` falls to; none if the pool is empty.
    pub(super) fn owner(&self, pool: usize, hash: u64) -> Option<u16> {
        let pool = &self.pools[pool];
        if pool.nodes.is_empty() {
            return None;
        }
        let ring = pool.ring.as_ref().unwrap_or(&self.ring);
        Some(ring.owner(hash, |node| pool.holds(node)))
    }
}

impl Node {
    fn new(input: &NodeInput, before: &[Self]) -> Self {
        let known = before.binary_search_by_key(&input.id, |node| node.id).ok();
        let carries = (input.capacity.nano_cpus / 500_000_000) + (input.capacity.memory_bytes >> 31);
        Self {
            id: input.id,
            hash: known.map_or_else(|| hash::rank64("placement-node", &[&input.id.0]), |place| before[place].hash),
            points: carries.clamp(POINTS.0, POINTS.1) as u32,
            capacity: input.capacity,
            open: input.active,
            pools: Vec::new(),
        }
    }
}

impl Total {
    fn add(&mut self, capacity: &Amounts) {
        self.nano_cpus += u128::from(capacity.nano_cpus);
        self.memory_bytes += u128::from(capacity.memory_bytes);
        self.size += capacity.size();
        self.nodes += 1;
    }

    fn remove(&mut self, capacity: &Amounts) {
        self.nano_cpus -= u128::from(capacity.nano_cpus);
        self.memory_bytes -= u128::from(capacity.memory_bytes);
        self.size -= capacity.size();
        self.nodes -= 1;
    }
}

/// Services with the same key may use the same nodes.
fn root_key(service: &ServiceInput, least: &Amounts) -> RootKey {
    let mut constraints = service.constraints.clone();
    constraints.sort();
    constraints.dedup();
    let large = (!service.reserved.fits(least)).then_some(service.reserved);
    (constraints, service.platforms.clone(), large)
}
