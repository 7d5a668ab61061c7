//! A tier: the slots of one size, and what each node was offered of them.
//!
//! A slot offers itself to one node after the other: its home, then along its walk. A node ranks offers by (position in
//! the walk, hash, slot) and keeps the longest run of them that fits; it refuses everything after the first that
//! does not. Since an offer's rank is the same to the slot and to the node, there is one outcome that satisfies all
//! of them, whoever begins: see `docs/design/0010-placement.md`.

use alloc::vec::Vec;

use super::field::Field;
use super::number::mix;
use super::{NOWHERE, Room, Service, Slots};

/// Positions of a walk: home, then in the slot's own part of the field, then anywhere in the service's pool.
pub(super) const POSITIONS: u8 = 1 + PART_STEPS + POOL_STEPS;
const PART_STEPS: u8 = 12;
const POOL_STEPS: u8 = 12;
const WALK: u64 = 0x0ff3_0000;
const RANK: u64 = 0x4a4e_0000;

/// One slot's offer to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Offer {
    /// The position in the walk, then the class of size, then a hash of the slot.
    rank: u64,
    pub(super) slot: u32,
    pub(super) service: u16,
}

impl Offer {
    pub(super) fn of(slots: &Slots, service: &Service, slot: u32, position: u8) -> Self {
        let seed = service.slot_seed(slot - service.first + 1);
        let class = u64::from(service.class);
        Self {
            rank: u64::from(position) << 56 | class << 48 | mix(seed ^ RANK) >> 16,
            slot,
            service: slots.service[slot as usize],
        }
    }

    pub(super) fn position(&self) -> u8 {
        (self.rank >> 56) as u8
    }
}

/// What one node has of one tier.
#[derive(Clone, Debug, Default)]
pub(super) struct Desk {
    /// All offers, refused ones too, in order of rank.
    pub(super) offers: Vec<Offer>,
    /// How many it may keep; no bound where slots are weighed.
    pub(super) limit: u32,
    pub(super) used: Room,
    /// Whether something was refused.
    pub(super) has_refused: bool,
    /// Whether offers came or went that were not read yet.
    pub(super) is_stale: bool,
    /// Whether something was refused for want of cpu or memory, or for the level, rather than for the limit.
    pub(super) is_tight: bool,
}

impl Desk {
    pub(super) fn put(&mut self, offer: Offer) {
        self.offers.insert(self.offers.partition_point(|other| *other < offer), offer);
    }

    /// Takes over what a reading of all offers came to.
    pub(super) fn conclude(&mut self, reading: &Reading) {
        (self.used, self.is_tight) = (reading.used, reading.is_tight);
        (self.has_refused, self.is_stale) = (reading.has_refused, false);
    }

    /// Tells whether an offer is kept and nothing else changes. Says no where that takes a reading.
    pub(super) fn simply_keeps(&self, offer: &Offer, service: &Service, room: &Room) -> bool {
        let used = self.used.with(service.reserved);
        let open = !self.has_refused && !self.is_stale && used.tasks <= self.limit && used.fits(room);
        let own = |other: &&Offer| other.service == offer.service;
        open && if offer.position() == 0 {
            // Of its service, some that are not at home here might be too many now.
            !self.offers.iter().rev().take_while(|other| other.position() > 0).any(|other| own(&other))
        } else {
            self.offers.last().is_none_or(|last| last < offer)
                && self.offers.iter().filter(own).count() < service.most_displaced as usize
        }
    }
}

/// The slots of one size.
#[derive(Clone, Debug, Default)]
pub(super) struct Tier {
    /// By node.
    pub(super) desks: Vec<Desk>,
    /// Whether its slots are weighed rather than counted.
    pub(super) is_weighed: bool,
}

/// What goes on at one desk while its offers are read in order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    pub(super) used: Room,
    closed: bool,
    has_refused: bool,
    pub(super) is_tight: bool,
}

impl Reading {
    /// Tells whether the next offer is kept. `mates` tells how many of its service were before it.
    pub(super) fn keeps(
        &mut self,
        offer: &Offer,
        service: &Service,
        limit: u32,
        room: &Room,
        mates: impl Fn() -> usize,
    ) -> bool {
        if self.closed || (offer.position() > 0 && mates() >= service.most_displaced as usize) {
            self.has_refused = true;
            return false;
        }
        let used = self.used.with(service.reserved);
        self.is_tight = !used.fits(room);
        if used.tasks > limit || self.is_tight {
            (self.closed, self.has_refused) = (true, true);
            return false;
        }
        self.used = used;
        true
    }
}

/// Returns the node that a slot offers itself to at a position.
pub(super) fn walk(field: &Field, service: &Service, slots: &Slots, slot: u32, position: u8) -> u16 {
    let index = slot as usize;
    if position == 0 {
        return slots.home[index];
    }
    let in_part = position <= PART_STEPS;
    let pool = if in_part { slots.leaf[index] as usize } else { field.branches[service.branch].pool };
    let seed = service.slot_seed(slot - service.first + 1);
    field.owner(pool, mix(seed.wrapping_add(WALK + u64::from(position)))).unwrap_or(NOWHERE)
}

impl Tier {
    /// Reads all offers of one desk in order, and returns for each whether it is kept.
    pub(super) fn read(&self, node: usize, room: &Room, services: &[Service]) -> (Vec<bool>, Reading) {
        let desk = &self.desks[node];
        let (mut kept, mut reading) = (Vec::with_capacity(desk.offers.len()), Reading::default());
        for offer in &desk.offers {
            let service = &services[usize::from(offer.service)];
            let mates = || {
                let before = desk.offers.iter().zip(&kept);
                before.filter(|(other, kept)| **kept && other.service == offer.service).count()
            };
            let keeps = reading.keeps(offer, service, desk.limit, room, mates);
            kept.push(keeps);
        }
        (kept, reading)
    }

    /// Makes the offers of all slots of the tier, position by position, and decides them. `rooms` is what the nodes
    /// have left for this tier. A slot that no node kept has the position [`POSITIONS`].
    pub(super) fn settle(
        &mut self,
        field: &Field,
        services: &[Service],
        slots: &mut Slots,
        own: &[u32],
        rooms: &[Room],
    ) {
        let mut readings = alloc::vec![Reading::default(); self.desks.len()];
        let mut waiting: Vec<u32> = own.to_vec();
        for position in 0..POSITIONS {
            let mut offers: Vec<(u16, Offer)> = Vec::with_capacity(waiting.len());
            for slot in waiting.drain(..) {
                let service = &services[slots.service[slot as usize] as usize];
                let node = walk(field, service, slots, slot, position);
                offers.push((node, Offer::of(slots, service, slot, position)));
            }
            offers.sort_unstable();
            for (node, offer) in offers {
                let (node, index) = (usize::from(node), offer.slot as usize);
                let service = &services[usize::from(offer.service)];
                let desk = &mut self.desks[node];
                let mates = || {
                    let kept = |other: &&Offer| slots.position[other.slot as usize] == other.position();
                    desk.offers.iter().filter(|other| other.service == offer.service).filter(kept).count()
                };
                let keeps = readings[node].keeps(&offer, service, desk.limit, &rooms[node], mates);
                desk.offers.push(offer);
                slots.position[index] = if keeps { position } else { position + 1 };
                slots.node[index] = if keeps { node as u16 } else { NOWHERE };
                if !keeps {
                    waiting.push(offer.slot);
                }
            }
            waiting.sort_unstable();
        }
        for (desk, reading) in self.desks.iter_mut().zip(readings) {
            desk.conclude(&reading);
        }
    }
}
