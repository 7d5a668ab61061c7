//! Leftovers: slots that no node of their walk kept find room wherever there is some.
//!
//! One after the other, the largest first: each takes, of the nodes that may run it and have room, one with the fewest
//! tasks of its service, and of those the one it ranks highest. Part limits do not count here, capacities do.

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::number::mix;
use super::tier::POSITIONS;
use super::{NOWHERE, PINNED, Placement, Room};

impl Placement {
    /// Places all slots that no desk kept, anew.
    pub(super) fn place_leftovers(&mut self) {
        let kept = |index: &usize| self.slots.position[*index] < POSITIONS || self.slots.position[*index] == PINNED;
        let homeless = |index: &usize| self.slots.home[*index] == NOWHERE;
        let all = 0..self.slots.node.len();
        let left = all.filter(|index| !kept(index) && !homeless(index)).map(|index| index as u32);
        let mut left: Vec<u32> = left.collect();
        left.sort_by_key(|slot| (Reverse(self.service_of(*slot).reserved.size()), *slot));
        self.leftovers = left;
        self.replace_leftovers();
    }

    /// Places the slots in `leftovers`, which must be complete and in order.
    pub(super) fn replace_leftovers(&mut self) {
        if self.leftovers.is_empty() {
            return;
        }
        for slot in &self.leftovers {
            self.slots.node[*slot as usize] = NOWHERE;
        }
        let mut rooms = self.rooms.clone();
        for tier in &self.tiers {
            for (room, desk) in rooms.iter_mut().zip(&tier.desks) {
                *room = room.minus(desk.used);
            }
        }
        let left = core::mem::take(&mut self.leftovers);
        let mut rest = left.as_slice();
        while let Some(first) = rest.first() {
            let service = self.service_of(*first);
            let own = rest.iter().take_while(|slot| service.owns(**slot)).count();
            let (group, others) = rest.split_at(own);
            self.place_group(group, &mut rooms);
            rest = others;
        }
        self.leftovers = left;
    }

    /// Places leftovers of one service.
    fn place_group(&mut self, group: &[u32], rooms: &mut [Room]) {
        let service = self.service_of(group[0]).clone();
        let mut mates = alloc::vec![0_u32; rooms.len()];
        for node in self.slots.node[service.range()].iter().filter(|node| **node != NOWHERE) {
            mates[usize::from(*node)] += 1;
        }
        let one = Room::default().with(service.reserved);
        let pool = self.field.branches[service.branch].pool;
        for slot in group {
            let seed = service.slot_seed(slot - service.first + 1);
            let open = self.field.pools[pool].nodes.iter().copied().filter(|node| {
                let node = usize::from(*node);
                one.fits(&rooms[node]) && (service.most_per_node == 0 || mates[node] < service.most_per_node)
            });
            let rank = |node: &u16| {
                let hash = mix(seed ^ self.field.nodes[usize::from(*node)].hash);
                (mates[usize::from(*node)], Reverse(hash), *node)
            };
            // What found no room leaves none for the next of the same service, either.
            let Some(node) = open.min_by_key(rank) else { break };
            mates[usize::from(node)] += 1;
            rooms[usize::from(node)] = rooms[usize::from(node)].minus(one);
            self.slots.node[*slot as usize] = node;
        }
    }

    fn service_of(&self, slot: u32) -> &super::Service {
        &self.services[usize::from(self.slots.service[slot as usize])]
    }
}
