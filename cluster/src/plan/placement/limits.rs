//! Limits: how much a node may keep, so that none carries much more than the others and few have to send slots away.
//!
//! Slots that are large for a node of this shoal, and those that reserve nothing, are counted tier by tier. All the others
//! are weighed together, on top of the large ones: a node takes them up to its *level*, a seventh above the mean
//! of all nodes, or above what falls to the node where that is clearly more. Everything that this depends on is rounded, so
//! that the loss of a node rarely changes it. Rules: `docs/design/0010-placement.md`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::field::{Closed, Field, Node};
use super::input::Amounts;
use super::number::{ceil_to, near_to};
use super::{NOWHERE, Placement};

/// The class of the slots that are weighed; larger ones have their own, and those that reserve nothing 0.
pub(super) const SMALL: u8 = 1;

/// Parts of a whole are counted in 2^20.
const FRACTION: u32 = 20;

/// What the slots that are at home in a pool, or fall to a node, reserve.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    nano_cpus: u128,
    memory_bytes: u128,
    sizes: u128,
    /// Sum of the squares of their sizes.
    squares: u128,
    /// The size of the largest of the small.
    largest: u64,
}

/// How much nodes may keep, and what that was computed from.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    /// Slots of up to so many binary digits of size are small.
    pub(super) small: u8,
    /// How many slots of a tier are at home in a pool.
    counts: BTreeMap<(usize, usize), u64>,
    /// By pool, what the slots at home in it reserve.
    loads: Vec<Load>,
    /// The part of all nodes that all slots take.
    mean: u64,
    /// By node, what it takes at most of slots that reserve something, unless they are large.
    pub(super) levels: Vec<Amounts>,
}

/// Where a loss changed limits.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Nodes that may keep another number of slots.
    concerned: Vec<u16>,
    /// Nodes with another level.
    levels: Vec<u16>,
}

/// Returns how many binary digits a size has.
pub(super) fn digits(size: u64) -> u8 {
    (u64::BITS - size.leading_zeros()) as u8
}

/// Returns up to how many digits slots are small: less than a sixteenth of a mean node, rounded down to a power of two.
pub(super) fn small(field: &Field) -> u8 {
    digits(field.total.size / field.total.nodes.max(1)).saturating_sub(5)
}

/// Returns what slots have in common that are decided together.
pub(super) fn class(size: u64, small: u8) -> u8 {
    match digits(size) {
        0 => 0,
        digits if digits <= small => SMALL,
        digits => digits.max(SMALL + 1),
    }
}

/// Returns an amount in parts of another.
fn part(of: u128, whole: u128) -> u64 {
    u64::try_from((of << FRACTION) / whole.max(1)).unwrap_or(u64::MAX)
}

impl Load {
    fn plus(self, other: Self, times: u64) -> Self {
        let times = u128::from(times);
        Self {
            nano_cpus: self.nano_cpus + other.nano_cpus * times,
            memory_bytes: self.memory_bytes + other.memory_bytes * times,
            sizes: self.sizes + other.sizes * times,
            squares: self.squares + other.squares * times,
            largest: self.largest.max(other.largest),
        }
    }

    fn divided(self, by: u64) -> Self {
        let by = u128::from(by);
        Self {
            nano_cpus: self.nano_cpus / by,
            memory_bytes: self.memory_bytes / by,
            sizes: self.sizes / by,
            squares: self.squares / by,
            largest: self.largest,
        }
    }

    /// Returns the part of a node that this load takes of cpu or memory, whichever is more.
    fn part(&self, nano_cpus: u128, memory_bytes: u128) -> u64 {
        part(self.nano_cpus, nano_cpus).max(part(self.memory_bytes, memory_bytes))
    }

    /// Returns what a node takes to which this falls, where nodes take the part `mean` on average.
    fn level(&self, node: &Node, mean: u64) -> Amounts {
        let capacity = node.capacity;
        let own = self.part(capacity.nano_cpus.into(), capacity.memory_bytes.into());
        let falls = if own > mean + mean / 16 { own } else { mean };
        // By how much the sum of slots that fall by chance strays, and room for one more.
        let strays = u128::from(own) * (self.squares.isqrt() + u128::from(self.largest)) / self.sizes.max(1);
        let strays = u64::try_from(strays).unwrap_or(u64::MAX);
        let level = u128::from(falls.saturating_add(strays.max(falls / 64 * 9)).min(1 << FRACTION));
        let of = |amount: u64| ((u128::from(amount) * level) >> FRACTION) as u64;
        Amounts { nano_cpus: of(capacity.nano_cpus), memory_bytes: of(capacity.memory_bytes) }
    }
}

impl Placement {
    /// Sets the limits of all nodes from the homes of all slots.
    pub(super) fn set_limits(&mut self) {
        self.weigh();
        self.limits.mean = self.mean();
        self.limits.levels = alloc::vec![Amounts::default(); self.field.nodes.len()];
        let nodes = self.field.nodes.len() as u16;
        let levels = self.levels(0..nodes);
        levels.into_iter().for_each(|(node, level)| self.limits.levels[usize::from(node)] = level);
        for tier in 0..self.tiers.len() {
            for (node, limit) in self.counts(tier, 0..nodes) {
                let tier = &mut self.tiers[tier];
                tier.desks[usize::from(node)].limit = if tier.is_weighed { u32::MAX } else { limit };
            }
        }
    }

    /// Counts and weighs the slots that are at home in each pool.
    fn weigh(&mut self) {
        let mut here = alloc::vec![0_u64; self.field.pools.len()];
        self.limits.loads = alloc::vec![Load::default(); here.len()];
        for service in &self.services {
            let size = service.reserved.size();
            let one = Load {
                nano_cpus: u128::from(service.reserved.nano_cpus),
                memory_bytes: u128::from(service.reserved.memory_bytes),
                sizes: u128::from(size),
                squares: u128::from(size) * u128::from(size),
                largest: if self.tiers[service.tier].is_weighed { size } else { 0 },
            };
            let mut pools: Vec<usize> = Vec::new();
            for slot in service.range().filter(|slot| self.slots.home[*slot] != NOWHERE) {
                let pool = self.slots.leaf[slot] as usize;
                if here[pool] == 0 {
                    pools.push(pool);
                }
                here[pool] += 1;
            }
            for pool in pools {
                let count = core::mem::take(&mut here[pool]);
                *self.limits.counts.entry((service.tier, pool)).or_default() += count;
                self.limits.loads[pool] = self.limits.loads[pool].plus(one, count);
            }
        }
    }

    /// Returns the part of what all nodes have that all slots take, of cpu or memory, whichever is more; rounded to
    /// eight binary digits, the nearest, so that halves and quarters are far from where that changes.
    fn mean(&self) -> u64 {
        let all = self.limits.loads.iter().fold(Load::default(), |sum, load| sum.plus(*load, 1));
        near_to(8, all.part(self.field.total.nano_cpus, self.field.total.memory_bytes))
    }

    /// Returns the levels of some nodes.
    fn levels(&self, nodes: impl Iterator<Item = u16>) -> Vec<(u16, Amounts)> {
        let mut of_point: Vec<Option<Load>> = alloc::vec![None; self.field.pools.len()];
        let level = |index: u16| {
            let node = &self.field.nodes[usize::from(index)];
            let mut falls = Load::default();
            for pool in node.pools.iter().map(|pool| *pool as usize) {
                let load = || self.limits.loads[pool].divided(self.field.pools[pool].weight());
                falls = falls.plus(*of_point[pool].get_or_insert_with(load), u64::from(node.points));
            }
            (index, falls.level(node, self.limits.mean))
        };
        nodes.map(level).collect()
    }

    /// Returns how many slots of a tier each of some nodes may keep: what falls to it on average by what it can carry,
    /// and an eighth more, or the root and one.
    fn counts(&self, tier: usize, nodes: impl Iterator<Item = u16>) -> Vec<(u16, u32)> {
        let limit = |index: u16| {
            let node = &self.field.nodes[usize::from(index)];
            let mut falls = 0_u64;
            for pool in node.pools.iter().map(|pool| *pool as usize) {
                let count = self.limits.counts.get(&(tier, pool)).copied().unwrap_or(0);
                falls += (ceil_to(5, count) << FRACTION) / self.field.pools[pool].weight() * u64::from(node.points);
            }
            let mean = falls.div_ceil(1 << FRACTION);
            (index, u32::try_from(mean + (mean.isqrt() + 1).max(mean / 8)).unwrap_or(u32::MAX))
        };
        nodes.map(limit).collect()
    }

    /// Sets new levels after a loss, and returns where something may have changed.
    pub(super) fn limits_after(&mut self, closed: &Closed) -> Changed {
        let mean = self.mean();
        let mut concerned: Vec<u16> = Vec::new();
        if mean == self.limits.mean {
            concerned.extend(closed.reweighted.iter().flat_map(|pool| &self.field.pools[*pool].nodes));
            concerned.sort_unstable();
            concerned.dedup();
        } else {
            self.limits.mean = mean;
            concerned.extend((0..).zip(&self.field.nodes).filter(|(_, node)| node.open).map(|(node, _)| node));
        }
        let mut levels = self.levels(concerned.iter().copied());
        levels
            .retain(|(node, level)| core::mem::replace(&mut self.limits.levels[usize::from(*node)], *level) != *level);
        Changed { concerned, levels: levels.into_iter().map(|(node, _)| node).collect() }
    }

    /// Sets new limits of a tier's desks; those that changed have to be read again.
    pub(super) fn relimit(&mut self, tier: usize, changed: &Changed, dirty: &mut BTreeSet<(u8, u16)>) {
        if self.tiers[tier].is_weighed {
            let touched = changed.levels.iter().filter(|node| self.is_touched(tier, **node));
            dirty.extend(touched.map(|node| (0, *node)));
            return;
        }
        for (node, limit) in self.counts(tier, changed.concerned.iter().copied()) {
            let desk = &mut self.tiers[tier].desks[usize::from(node)];
            if core::mem::replace(&mut desk.limit, limit) != limit {
                dirty.insert((0, node));
            }
        }
    }
}
