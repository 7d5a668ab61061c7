//! The ring: which node a hash falls to, in proportion to the nodes' weights.
//!
//! Each node has points on a circle of 2³² places, more of them the more it weighs. A hash asks [`PROBES`] places and
//! takes the owner of the point that follows one of them most closely (multi-probe consistent hashing, Appleton and
//! O'Reilly 2015: few points, even shares). Without a node, only what fell to that node falls elsewhere.

use alloc::vec::Vec;

use super::number::mix;

/// How many places one hash asks. More are more even and slower.
const PROBES: u64 = 8;

/// Points on a circle, each owned by a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    keys: Vec<u32>,
    owners: Vec<u16>,
    /// Of each part of the circle, the first point in it or after it.
    starts: Vec<u32>,
    shift: u32,
}

impl Ring {
    /// Makes the ring of these nodes: index, hash of the id, number of points.
    pub(super) fn new(nodes: impl Iterator<Item = (u16, u64, u32)> + Clone) -> Self {
        let total = nodes.clone().map(|(_, _, points)| points as usize).sum();
        let mut points: Vec<u64> = Vec::with_capacity(total);
        for (node, hash, count) in nodes {
            // The key comes first, and of two equal keys the lower node.
            let key = |number: u32| mix(hash.wrapping_add(u64::from(number))) >> 32;
            points.extend((0..count).map(|number| key(number) << 16 | u64::from(node)));
        }
        points.sort_unstable();
        let bits = total.next_power_of_two().trailing_zeros().clamp(1, 24);
        let mut ring = Self {
            keys: points.iter().map(|point| (point >> 16) as u32).collect(),
            owners: points.iter().map(|point| *point as u16).collect(),
            starts: Vec::with_capacity(1 << bits),
            shift: u32::BITS - bits,
        };
        let mut at = 0;
        for part in 0..1_u64 << bits {
            while ring.keys.get(at).is_some_and(|key| u64::from(*key) < part << ring.shift) {
                at += 1;
            }
            ring.starts.push(at as u32);
        }
        ring
    }

    /// Returns the node that `hash` falls to among those that `may` says; there must be one.
    pub(super) fn owner(&self, hash: u64, may: impl Fn(u16) -> bool) -> u16 {
        let mut best = (u32::MAX, u16::MAX);
        for probe in 0..PROBES / 2 {
            // Two places from one scramble.
            let places = mix(hash.wrapping_add(probe));
            for place in [(places >> 32) as u32, places as u32] {
                best = best.min(self.successor(place, best.0, &may));
            }
        }
        best.1
    }

    /// Returns the distance and owner of the next point whose owner may be taken, unless it is farther than `bound`.
    fn successor(&self, place: u32, bound: u32, may: impl Fn(u16) -> bool) -> (u32, u16) {
        let mut at = self.starts[(place >> self.shift) as usize] as usize;
        while at < self.keys.len() && self.keys[at] < place {
            at += 1;
        }
        for _ in 0..self.keys.len() {
            if at >= self.keys.len() {
                at = 0;
            }
            let distance = self.keys[at].wrapping_sub(place);
            if distance > bound {
                return (u32::MAX, u16::MAX);
            }
            if may(self.owners[at]) {
                return (distance, self.owners[at]);
            }
            at += 1;
        }
        (u32::MAX, u16::MAX)
    }
}
