//! Homes: where each slot would be if every node had room enough.
//!
//! A service's slots choose one after the other, so that scaling moves none of them. Each takes the part of the field
//! with the fewest of the earlier slots, and in it the first node along its own walk that has less than its share of
//! them ([`share`]). Services know nothing of each other here.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::field::Field;
use super::number::{mix, share};
use super::{NOWHERE, Service, Slots};

/// Steps of a slot's walk before it looks at all nodes of its pool.
const STEPS: u64 = 16;
const WALK: u64 = 0x5e1f_0000;
/// So many homes are looked through sooner than what a node was offered.
const FEW: u32 = 256;

/// What one service's slots have taken so far.
#[derive(Debug, Default)]
pub(super) struct Taken {
    nodes: Vec<u32>,
    branches: Vec<u32>,
}

impl Taken {
    pub(super) fn new(field: &Field) -> Self {
        Self { nodes: alloc::vec![0; field.nodes.len()], branches: alloc::vec![0; field.branches.len()] }
    }
}

/// Finds the homes of all slots of a service that are not pinned.
pub(super) fn settle(field: &Field, service: &Service, slots: &mut Slots, taken: &mut Taken) {
    let mut refused = Vec::new();
    for number in 1..=service.replicas {
        let index = service.first as usize + number as usize - 1;
        if slots.pinned(index) {
            continue;
        }
        let seed = service.slot_seed(number);
        let Some(leaf) = descend(field, service, seed, &mut taken.branches) else { break };
        taken.branches[leaf] += 1;
        let pool = field.branches[leaf].pool;
        let most = service.bounded(share(taken.branches[leaf], field.pools[pool].count()));
        slots.leaf[index] = pool as u32;
        slots.share[index] = most;
        let load = |node: u16| taken.nodes[usize::from(node)];
        refused.clear();
        let home = choose(field, pool, seed, |node| load(node) < most, &mut refused);
        slots.passed.note(index as u32, &refused);
        let Some(home) = home else { continue };
        slots.home[index] = home;
        taken.nodes[usize::from(home)] += 1;
    }
    let range = service.range();
    slots.home[range].iter().filter(|home| **home != NOWHERE).for_each(|home| taken.nodes[usize::from(*home)] = 0);
    forget(field, service.branch, &mut taken.branches);
}

fn forget(field: &Field, branch: usize, taken: &mut [u32]) {
    taken[branch] = 0;
    field.branches[branch].parts.iter().for_each(|(_, part)| forget(field, *part, taken));
}

/// Returns the part for the next slot: at each preference the one with the fewest slots, unless it is full.
fn descend(field: &Field, service: &Service, seed: u64, taken: &mut [u32]) -> Option<usize> {
    let mut branch = service.branch;
    while !field.branches[branch].parts.is_empty() {
        taken[branch] += 1;
        let room = |part: usize| {
            let nodes = field.pools[field.branches[part].pool].nodes.len() as u64;
            service.most_per_node == 0 || u64::from(taken[part]) < nodes * u64::from(service.most_per_node)
        };
        let parts = field.branches[branch].parts.iter().filter(|(_, part)| room(*part));
        branch = parts.min_by_key(|(value, part)| (taken[*part], mix(seed ^ value), *part)).map(|(_, part)| *part)?;
    }
    Some(branch)
}

/// Which slots passed a node by, since it had its share: those that choose again when it has not any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Passed {
    /// By node. May name slots that would not pass any more: choosing again is harmless.
    by_node: Vec<Vec<u32>>,
    /// Those that looked at all nodes of their pool.
    widely: Vec<u32>,
}

impl Passed {
    pub(super) fn new(nodes: usize) -> Self {
        Self { by_node: alloc::vec![Vec::new(); nodes], widely: Vec::new() }
    }

    fn note(&mut self, slot: u32, refused: &[u16]) {
        if refused.len() as u64 == STEPS {
            self.widely.push(slot);
        }
        refused.iter().for_each(|node| self.by_node[usize::from(*node)].push(slot));
    }

    /// Returns the slots that passed a node.
    pub(super) fn by(&self, node: u16) -> impl Iterator<Item = u32> + '_ {
        self.by_node[usize::from(node)].iter().chain(&self.widely).copied()
    }
}

/// Returns the first node along a slot's walk that has room; after [`STEPS`] that have none, the one it ranks highest of
/// all. Adds those that have none to `refused`.
fn choose(field: &Field, pool: usize, seed: u64, room: impl Fn(u16) -> bool, refused: &mut Vec<u16>) -> Option<u16> {
    for step in 0..STEPS {
        let node = field.owner(pool, mix(seed.wrapping_add(WALK + step)))?;
        if room(node) {
            return Some(node);
        }
        refused.push(node);
    }
    let nodes = field.pools[pool].nodes.iter().copied().filter(|node| room(*node));
    nodes.max_by_key(|node| (mix(seed ^ field.nodes[usize::from(*node)].hash), *node))
}

/// Finds new homes for the slots of one service whose home has closed or who passed it by, for those that must then give
/// way to a lower slot, and for those that passed by what a slot has left. `mates` returns the service's slots that were
/// at home on a node, in whatever order; it is not asked where there are few slots to look through. Returns what moved, in order of slot: index, old and new home.
pub(super) fn resettle(
    field: &Field,
    service: &Service,
    slots: &mut Slots,
    lost: impl IntoIterator<Item = u32>,
    mates: impl Fn(u16) -> Vec<u32>,
) -> Vec<(u32, u16, u16)> {
    let mut waiting: BTreeSet<u32> = lost.into_iter().collect();
    let mut moved: BTreeMap<u32, u16> = BTreeMap::new();
    let mut arrived: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    while let Some(index) = waiting.pop_first() {
        let seed = service.slot_seed(index - service.first + 1);
        let most = slots.share[index as usize];
        let present = |node: u16, slots: &Slots| {
            let mut present: Vec<u32> = if service.replicas <= FEW {
                let homes = slots.home[service.range()].iter().zip(service.first..);
                homes.filter(|(home, _)| **home == node).map(|(_, slot)| slot).collect()
            } else {
                mates(node).into_iter().chain(arrived.get(&node).into_iter().flatten().copied()).collect()
            };
            present.retain(|mate| slots.home[*mate as usize] == node && *mate != index && !waiting.contains(mate));
            present
        };
        let below = |node: u16| present(node, slots).iter().filter(|mate| **mate < index).count() < most as usize;
        let (pool, mut refused) = (slots.leaf[index as usize] as usize, Vec::new());
        let home = choose(field, pool, seed, below, &mut refused).unwrap_or(NOWHERE);
        let mut after = if home == NOWHERE { Vec::new() } else { present(home, slots) };
        slots.passed.note(index, &refused);
        after.push(index);
        after.sort_unstable();
        after.dedup();
        // The first that is one too many there gives way; those after it then stand as before.
        let too_many = |(rank, mate): &(usize, &u32)| *rank as u64 >= u64::from(slots.share[**mate as usize]);
        waiting.extend(after.iter().enumerate().find(too_many).map(|(_, mate)| *mate).filter(|mate| *mate != index));
        let left = slots.home[index as usize];
        if home == left {
            continue;
        }
        moved.entry(index).or_insert(left);
        if left != NOWHERE {
            waiting.extend(slots.passed.by(left).filter(|other| *other > index && service.owns(*other)));
        }
        if home != NOWHERE {
            arrived.entry(home).or_default().push(index);
        }
        slots.home[index as usize] = home;
    }
    let moved = moved.into_iter().map(|(index, from)| (index, from, slots.home[index as usize]));
    moved.filter(|(_, from, to)| from != to).collect()
}
