//! Loss: the placement without one of its nodes, from the one with it.
//!
//! Only what the loss touches is decided again: homes on the node and those that give way to them, then every desk where
//! an offer comes or goes, in order of position. A decision depends on lower positions only, so each is final when
//! it is made, and since there is one outcome, it is that of a full computation. Where the rounded number of nodes of a
//! pool changes, the homes of the services in it are found anew; if those are many, everything is computed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::field::Closed;
use super::homes::Taken;
use super::number::share;
use super::tier::{Offer, POSITIONS, walk};
use super::{NOWHERE, Placement, Room, Service, homes, limits};
use crate::id::NodeId;

/// What is left to do.
#[derive(Debug, Default)]
struct Dirty {
    /// Desks of the present tier to read again, by the lowest position at which something changed.
    desks: BTreeSet<(u8, u16)>,
    /// Nodes where what is kept may have changed, in this tier or an earlier one.
    touched: BTreeSet<u16>,
}

impl Placement {
    /// Follows the loss of a node. The result is that of [`Placement::of`] without it.
    pub fn without(&mut self, id: &NodeId) {
        let Some(node) = self.node_index(id).filter(|node| self.field.nodes[*node].open) else {
            self.inputs.nodes.retain(|node| node.id != *id);
            return self.renew();
        };
        if let Ok(place) = self.inputs.nodes.binary_search_by_key(id, |node| node.id) {
            self.inputs.nodes.remove(place);
        }
        if !self.follow(node) {
            self.renew();
        }
    }

    fn renew(&mut self) {
        let inputs = core::mem::take(&mut self.inputs);
        *self = self.again(inputs);
    }

    /// Tells whether nothing depends on the exact number of nodes.
    fn may_follow(&self, node: usize) -> bool {
        let depends = |(service, input): (&Service, &super::ServiceInput)| {
            let branch = &self.field.branches[service.branch];
            let clipped = !service.global && service.replicas != input.replicas;
            let bounded = service.most_per_node > 0 && self.field.pools[branch.pool].holds(node as u16);
            clipped || bounded && self.may_fill(service.branch, service.replicas, service.most_per_node)
        };
        self.inputs.pinned.is_empty() && !self.services.iter().zip(&self.inputs.services).any(depends)
    }

    /// Tells whether some part of a branch may be full, so that slots go to others, if it loses a node: whether an even
    /// share of `slots` exceeds what its nodes may run.
    fn may_fill(&self, branch: usize, slots: u32, most_per_node: u32) -> bool {
        let parts = &self.field.branches[branch].parts;
        let even = slots.div_ceil((parts.len() as u32).max(1));
        let fills = |part: usize| {
            let nodes = self.field.pools[self.field.branches[part].pool].nodes.len().saturating_sub(1) as u64;
            u64::from(even) > nodes * u64::from(most_per_node)
        };
        parts.iter().any(|(_, part)| fills(*part) || self.may_fill(*part, even, most_per_node))
    }

    /// Follows the loss of a node; tells whether it could. If not, everything must be computed.
    pub(super) fn follow(&mut self, node: usize) -> bool {
        if !self.may_follow(node) {
            return false;
        }
        let closed = self.field.close(node as u16);
        if limits::small(&self.field) != self.limits.small {
            return false;
        }
        let Some(mut moved) = self.rehome(&closed) else { return false };
        let in_recounted = |service: &Service| closed.recounted.contains(&self.field.branches[service.branch].pool);
        let recounted: Vec<usize> =
            (0..self.services.len()).filter(|index| in_recounted(&self.services[*index])).collect();
        let limits = self.limits_after(&closed);
        self.globals.values_mut().for_each(|nodes| nodes.retain(|other| usize::from(*other) != node));
        let mut dirty = Dirty::default();
        let mut left: Vec<u32> = core::mem::take(&mut self.leftovers);
        for tier in 0..self.tiers.len() {
            let above = dirty.touched.iter().filter(|node| self.is_touched(tier, **node));
            dirty.desks = above.map(|node| (0, *node)).collect();
            self.relimit(tier, &limits, &mut dirty.desks);
            self.recount(tier, &recounted, &mut dirty);
            if !self.vacate(tier, node, &closed, &mut dirty) {
                return false;
            }
            for (slot, from) in moved.remove(&tier).unwrap_or_default() {
                self.go_home(tier, slot, (usize::from(from) != node).then_some(from), &mut dirty);
            }
            while let Some((position, desk)) = dirty.desks.pop_first() {
                dirty.touched.insert(desk);
                self.reread(tier, position, desk, &mut dirty, &mut left);
            }
        }
        left.retain(|slot| self.slots.position[*slot as usize] == POSITIONS);
        let size = |slot: &u32| self.services[usize::from(self.slots.service[*slot as usize])].reserved.size();
        left.sort_by_key(|slot| (core::cmp::Reverse(size(slot)), *slot));
        left.dedup();
        self.leftovers = left;
        self.replace_leftovers();
        true
    }

    /// Finds the homes of all services anew that are at home in a pool whose rounded number changed. Returns what moved,
    /// by tier: slot and old home; none if that would be about as much as computing everything.
    fn rehome(&mut self, closed: &Closed) -> Option<BTreeMap<usize, Vec<(u32, u16)>>> {
        let mut moved: BTreeMap<usize, Vec<(u32, u16)>> = BTreeMap::new();
        if closed.is_emptied || closed.recounted.is_empty() {
            return (!closed.is_emptied).then_some(moved);
        }
        let at_home = |service: &&Service| self.field.has_leaf(service.branch, &closed.recounted);
        let affected: usize = self.services.iter().filter(at_home).map(|service| service.replicas as usize).sum();
        if affected > self.slots.node.len() / 4 {
            return None;
        }
        let mut taken = Taken::new(&self.field);
        for service in self.services.iter().filter(|service| !service.global).filter(at_home) {
            let before: Vec<u16> = self.slots.home[service.range()].to_vec();
            self.slots.home[service.range()].fill(NOWHERE);
            homes::settle(&self.field, service, &mut self.slots, &mut taken);
            for (index, from) in service.range().zip(before) {
                let to = self.slots.home[index];
                if to != from {
                    moved.entry(service.tier).or_default().push((index as u32, from));
                    if to == NOWHERE || from == NOWHERE {
                        return None;
                    }
                }
            }
        }
        Some(moved)
    }

    /// Follows the number of nodes of the pools from which displaced slots' shares derive.
    fn recount(&mut self, tier: usize, concerned: &[usize], dirty: &mut Dirty) {
        for index in concerned.iter().copied() {
            let service = &self.services[index];
            if service.tier != tier || service.global {
                continue;
            }
            let pool = self.field.branches[service.branch].pool;
            let most = service.bounded(share(service.replicas, self.field.pools[pool].count()));
            if service.most_displaced == most {
                continue;
            }
            for slot in service.range().filter(|slot| !self.slots.pinned(*slot)) {
                for position in 1..=self.slots.position[slot].min(POSITIONS - 1) {
                    dirty.desks.insert((position, walk(&self.field, service, &self.slots, slot as u32, position)));
                }
            }
            self.services[index].most_displaced = most;
        }
    }

    /// Moves a slot's first offer to its present home, from the one it had if that is still open.
    fn go_home(&mut self, tier: usize, slot: u32, from: Option<u16>, dirty: &mut Dirty) {
        if let Some(from) = from {
            self.withdraw(tier, slot, 0, from, dirty);
        }
        let believed = self.slots.position[slot as usize] == 0;
        self.offer(tier, slot, 0, believed, dirty);
    }

    /// Tells whether a change above, or of the level, may change what a desk keeps.
    pub(super) fn is_touched(&self, tier: usize, node: u16) -> bool {
        let desk = &self.tiers[tier].desks[usize::from(node)];
        desk.is_tight || !desk.used.fits(&self.room(tier, usize::from(node)))
    }

    /// Moves the offers of a closed node to where they go without it; tells whether every slot still has a home.
    fn vacate(&mut self, tier: usize, node: usize, closed: &Closed, dirty: &mut Dirty) -> bool {
        let offers = core::mem::take(&mut self.tiers[tier].desks[node].offers);
        self.tiers[tier].desks[node].used = Room::default();
        let mut homeless: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
        for offer in &offers {
            if offer.position() == 0 {
                homeless.entry(offer.service).or_default().push(offer.slot);
            } else {
                let believed = self.slots.position[offer.slot as usize] == offer.position();
                self.offer(tier, offer.slot, offer.position(), believed, dirty);
            }
        }
        for (service, mut lost) in homeless {
            let (service, desks) = (&self.services[usize::from(service)], &self.tiers[tier].desks);
            if self.field.has_leaf(service.branch, &closed.recounted) {
                // All its homes were found anew.
                continue;
            }
            lost.extend(self.slots.passed.by(node as u16).filter(|slot| service.owns(*slot)));
            let mates = |at: u16| {
                let homes = desks[usize::from(at)].offers.iter().take_while(|offer| offer.position() == 0);
                homes.map(|offer| offer.slot).filter(|slot| service.owns(*slot)).collect()
            };
            let moved = homes::resettle(&self.field, service, &mut self.slots, lost, mates);
            for (slot, from, to) in moved {
                if to == NOWHERE || from == NOWHERE {
                    return false;
                }
                self.go_home(tier, slot, (usize::from(from) != node).then_some(from), dirty);
            }
        }
        true
    }

    /// Reads one desk again and acts on what changed at `position`; what changed beyond it waits.
    fn reread(&mut self, tier: usize, position: u8, node: u16, dirty: &mut Dirty, left: &mut Vec<u32>) {
        let room = self.room(tier, usize::from(node));
        let (kept, reading) = self.tiers[tier].read(usize::from(node), &room, &self.services);
        let desk = &mut self.tiers[tier].desks[usize::from(node)];
        desk.conclude(&reading);
        let mut changed: Vec<(u32, bool)> = Vec::new();
        for (offer, keeps) in desk.offers.iter().zip(kept).filter(|(offer, _)| offer.position() >= position) {
            if keeps == (self.slots.position[offer.slot as usize] == offer.position()) {
                continue;
            }
            if offer.position() == position {
                changed.push((offer.slot, keeps));
            } else {
                dirty.desks.insert((offer.position(), node));
            }
        }
        for (slot, keeps) in changed {
            if keeps {
                self.call_back(tier, slot, position, node, dirty);
            } else if position + 1 < POSITIONS {
                self.offer(tier, slot, position + 1, true, dirty);
            } else {
                self.slots.position[slot as usize] = POSITIONS;
                self.slots.node[slot as usize] = NOWHERE;
                left.push(slot);
            }
        }
    }

    /// Takes back all offers of a slot beyond `position`, where `node` keeps it after all.
    fn call_back(&mut self, tier: usize, slot: u32, position: u8, node: u16, dirty: &mut Dirty) {
        let service = &self.services[usize::from(self.slots.service[slot as usize])];
        let last = self.slots.position[slot as usize].min(POSITIONS - 1);
        let further: Vec<(u8, u16)> = (position + 1..=last)
            .map(|further| (further, walk(&self.field, service, &self.slots, slot, further)))
            .collect();
        for (further, at) in further {
            self.withdraw(tier, slot, further, at, dirty);
        }
        self.slots.position[slot as usize] = position;
        self.slots.node[slot as usize] = node;
    }

    /// Offers a slot at a position of its walk; if it is `believed` to be kept there, that is where it is until read.
    fn offer(&mut self, tier: usize, slot: u32, position: u8, believed: bool, dirty: &mut Dirty) {
        let service = &self.services[usize::from(self.slots.service[slot as usize])];
        let node = walk(&self.field, service, &self.slots, slot, position);
        let offer = Offer::of(&self.slots, service, slot, position);
        let room = self.room(tier, usize::from(node));
        let desk = &mut self.tiers[tier].desks[usize::from(node)];
        if believed {
            self.slots.position[slot as usize] = position;
            self.slots.node[slot as usize] = node;
        }
        if believed && desk.simply_keeps(&offer, service, &room) {
            desk.used = desk.used.with(service.reserved);
            dirty.touched.insert(node);
        } else {
            desk.is_stale = true;
            dirty.desks.insert((position, node));
        }
        desk.put(offer);
    }

    fn withdraw(&mut self, tier: usize, slot: u32, position: u8, node: u16, dirty: &mut Dirty) {
        let service = &self.services[usize::from(self.slots.service[slot as usize])];
        let desk = &mut self.tiers[tier].desks[usize::from(node)];
        desk.offers.retain(|offer| (offer.slot, offer.position()) != (slot, position));
        if desk.has_refused || desk.is_stale {
            desk.is_stale = true;
            dirty.desks.insert((position, node));
        } else {
            // All that is left is kept as before.
            desk.used = desk.used.minus(Room::default().with(service.reserved));
            dirty.touched.insert(node);
        }
    }
}
