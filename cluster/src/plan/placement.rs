//! Placement: which node runs each slot, as a pure function of the services and the nodes that are up.
//!
//! Input: [`Inputs`], in whatever order. Output: slot → node, or why a slot has none. Three steps, each the same on
//! every node: [`homes`] finds where each slot would be if there were room, service by service; [`tier`] lets the slots
//! of one size offer themselves along their walks until every node has what fits and no more than its part of them;
//! [`leftover`] finds room for the few that no node kept. [`Placement::without`] follows the loss of a node in much less
//! time and with the same result. The rules and the proof that they have one outcome: `docs/design/0010-placement.md`.

mod assignments;
mod field;
mod follow;
mod homes;
mod input;
mod leftover;
mod limits;
mod loss;
mod number;
mod ring;
#[cfg(test)]
mod tests;
mod tier;
mod why;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

pub use self::assignments::Assignments;
use self::field::Field;
pub use self::follow::Placed;
use self::homes::{Passed, Taken};
pub use self::input::{Amounts, Inputs, Job, NodeInput, ServiceInput};
use self::limits::Limits;
use self::number::mix;
use self::tier::Tier;
pub use self::why::{Obstacles, Why};
use crate::hash;
use crate::id::{NodeId, ServiceId};
use crate::limits::{NODES_MAX, SERVICES_MAX, SLOTS_MAX, TASKS_PER_NODE_MAX};
use crate::mutation::{self, Mutation};

/// Up to so many slots a service is spread exactly: the numbers on any two nodes that may run it differ by at most one,
/// if both have room.
pub const STRICT_SLOTS: u32 = 32;

/// No node.
const NOWHERE: u16 = u16::MAX;

const _: () = assert!(NODES_MAX < NOWHERE as usize && SERVICES_MAX < u16::MAX as usize, "indices fit");
const _: () = assert!(SLOTS_MAX < u32::MAX as usize, "indices of slots fit");

/// What a node has left, or what was taken of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    amounts: Amounts,
    tasks: u32,
}

impl Room {
    fn with(self, reserved: Amounts) -> Self {
        Self { amounts: self.amounts.plus(reserved), tasks: self.tasks + 1 }
    }

    fn fits(&self, room: &Self) -> bool {
        (self.amounts.fits(&room.amounts) || mutation::on(Mutation::RoomIgnored)) && self.tasks <= room.tasks
    }

    fn minus(self, used: Self) -> Self {
        Self { amounts: self.amounts.minus(used.amounts), tasks: self.tasks.saturating_sub(used.tasks) }
    }
}

/// One service and where its slots begin among all.
#[derive(Clone, Debug)]
struct Service {
    id: ServiceId,
    seed: u64,
    first: u32,
    /// The slots that are placed: no more than all nodes together may run.
    replicas: u32,
    global: bool,
    reserved: Amounts,
    /// How many binary digits its slots' size has: of those at one desk the smaller come first.
    class: u8,
    most_per_node: u32,
    /// How many of its slots may be on a node for one that is not at home there to join them.
    most_displaced: u32,
    branch: usize,
    tier: usize,
}

impl Service {
    fn slot_seed(&self, number: u32) -> u64 {
        mix(self.seed.wrapping_add(u64::from(number)))
    }

    fn bounded(&self, share: u32) -> u32 {
        if self.most_per_node == 0 { share } else { share.min(self.most_per_node) }
    }

    fn range(&self) -> Range<usize> {
        self.first as usize..self.first as usize + self.replicas as usize
    }

    fn owns(&self, slot: u32) -> bool {
        (self.first..self.first + self.replicas).contains(&slot)
    }
}

/// What is known of each slot, by index.
#[derive(Clone, Debug, Default)]
struct Slots {
    service: Vec<u16>,
    home: Vec<u16>,
    /// The pool it is at home in.
    leaf: Vec<u32>,
    /// How many of the slots up to this one its home may have.
    share: Vec<u32>,
    /// Where in its walk it is.
    position: Vec<u8>,
    node: Vec<u16>,
    passed: Passed,
}

/// A slot that stays where it is has this position.
const PINNED: u8 = u8::MAX;

impl Slots {
    fn new(count: usize, nodes: usize) -> Self {
        Self {
            service: Vec::with_capacity(count),
            home: alloc::vec![NOWHERE; count],
            leaf: alloc::vec![0; count],
            share: alloc::vec![0; count],
            position: alloc::vec![0; count],
            node: alloc::vec![NOWHERE; count],
            passed: Passed::new(nodes),
        }
    }

    fn pinned(&self, index: usize) -> bool {
        self.position[index] == PINNED
    }
}

/// Which node runs each slot, and what is needed to follow a loss and to say why.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    inputs: Inputs,
    field: Field,
    services: Vec<Service>,
    slots: Slots,
    /// Of slots of different sizes, the largest first.
    tiers: Vec<Tier>,
    limits: Limits,
    /// What nodes have beside what global services and pinned slots take.
    rooms: Vec<Room>,
    /// The slots that no node kept, in order.
    leftovers: Vec<u32>,
    /// Of each global service, the nodes that run it, by its index.
    globals: BTreeMap<u16, Vec<u16>>,
}

impl Placement {
    /// Places every slot. Nodes and services beyond [`NODES_MAX`] and [`SERVICES_MAX`], in order of id, do not count.
    pub fn of(inputs: Inputs) -> Self {
        Self::default().again(inputs)
    }

    /// Places every slot of other inputs. The result is that of [`Placement::of`], a little sooner.
    fn again(&self, mut inputs: Inputs) -> Self {
        inputs.nodes.sort_by_key(|node| node.id);
        inputs.nodes.truncate(NODES_MAX);
        inputs.services.sort_by_key(|service| service.id);
        inputs.services.truncate(SERVICES_MAX);
        let (field, branches) = Field::new(&inputs.nodes, &inputs.services, &self.field.nodes);
        let mut placement = Self { inputs, field, ..Self::default() };
        placement.number(&branches);
        placement.hold_pinned();
        placement.place_globals();
        let mut taken = Taken::new(&placement.field);
        for service in placement.services.iter().filter(|service| !service.global) {
            homes::settle(&placement.field, service, &mut placement.slots, &mut taken);
        }
        placement.set_limits();
        placement.settle_tiers();
        placement.place_leftovers();
        placement
    }

    /// Returns what it was computed from, in order of id.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Numbers the slots of all services and sorts the services into tiers.
    fn number(&mut self, branches: &[usize]) {
        self.limits.small = limits::small(&self.field);
        let class = |service: &ServiceInput| limits::class(service.reserved.size(), self.limits.small);
        let mut classes: Vec<u8> = self.inputs.services.iter().map(class).collect();
        let all = classes.clone();
        classes.sort_unstable_by(|one, other| other.cmp(one));
        classes.dedup();
        let mut first = 0;
        for ((input, branch), own) in self.inputs.services.iter().zip(branches).zip(all) {
            let pool = &self.field.pools[self.field.branches[*branch].pool];
            let most = (self.inputs.nodes.len() * TASKS_PER_NODE_MAX).min(SLOTS_MAX - first);
            let replicas = if input.global { 0 } else { (input.replicas as usize).min(most) as u32 };
            let mut service = Service {
                id: input.id,
                seed: hash::rank64("placement-service", &[&input.id.0]),
                first: first as u32,
                replicas,
                global: input.global,
                reserved: input.reserved,
                class: limits::digits(input.reserved.size()),
                most_per_node: input.replicas_per_node_max,
                most_displaced: 0,
                branch: *branch,
                tier: classes.iter().position(|class| *class == own).expect("every class is listed"),
            };
            service.most_displaced = service.bounded(number::share(replicas, pool.count()));
            first += replicas as usize;
            self.services.push(service);
        }
        self.slots = Slots::new(first, self.field.nodes.len());
        for (index, service) in self.services.iter().enumerate() {
            self.slots.service.extend(core::iter::repeat_n(index as u16, service.replicas as usize));
        }
        let desks = alloc::vec![tier::Desk::default(); self.field.nodes.len()];
        let tier = |class| Tier { desks: desks.clone(), is_weighed: class == limits::SMALL };
        self.tiers = classes.into_iter().map(tier).collect();
    }

    /// Leaves pinned slots where they are.
    fn hold_pinned(&mut self) {
        let full = |node: &field::Node| Room { amounts: node.capacity, tasks: TASKS_PER_NODE_MAX as u32 };
        self.rooms = self.field.nodes.iter().map(full).collect();
        for ((id, number), node) in &self.inputs.pinned {
            let (Some(service), Some(node)) = (self.service_index(id), self.node_index(node)) else { continue };
            let service = &self.services[service];
            if !service.global && (1..=service.replicas).contains(number) {
                let index = service.first as usize + *number as usize - 1;
                self.slots.position[index] = PINNED;
                self.slots.node[index] = node as u16;
                let taken = Room::default().with(service.reserved);
                self.rooms[node] = self.rooms[node].minus(taken);
            }
        }
    }

    /// Gives every node that may run a global service one task of it, as long as it fits.
    fn place_globals(&mut self) {
        for (index, service) in self.services.iter().enumerate().filter(|(_, service)| service.global) {
            let pinned = self.inputs.pinned.iter().filter(|((id, _), _)| *id == service.id);
            let pinned: Vec<usize> = pinned.filter_map(|(_, node)| self.node_index(node)).collect();
            let pool = &self.field.pools[self.field.branches[service.branch].pool];
            let mut nodes: Vec<u16> =
                pool.nodes.iter().copied().chain(pinned.iter().map(|node| *node as u16)).collect();
            nodes.sort_unstable();
            nodes.dedup();
            let one = Room::default().with(service.reserved);
            nodes.retain(|node| pinned.contains(&usize::from(*node)) || one.fits(&self.rooms[usize::from(*node)]));
            for node in &nodes {
                self.rooms[usize::from(*node)] = self.rooms[usize::from(*node)].minus(one);
            }
            self.globals.insert(index as u16, nodes);
        }
    }

    fn settle_tiers(&mut self) {
        let mut own: Vec<Vec<u32>> = alloc::vec![Vec::new(); self.tiers.len()];
        for service in &self.services {
            let slots = service.range().filter(|index| self.slots.home[*index] != NOWHERE);
            own[service.tier].extend(slots.map(|index| index as u32));
        }
        for (tier, own) in own.iter().enumerate() {
            let rooms: Vec<Room> = (0..self.field.nodes.len()).map(|node| self.room(tier, node)).collect();
            self.tiers[tier].settle(&self.field, &self.services, &mut self.slots, own, &rooms);
        }
    }

    /// Returns what a node has left for a tier, and of slots that are weighed may take.
    fn room(&self, tier: usize, node: usize) -> Room {
        let above = |left: Room| self.tiers[..tier].iter().fold(left, |left, above| left.minus(above.desks[node].used));
        let mut room = above(self.rooms[node]);
        if self.tiers[tier].is_weighed {
            let level = Room { amounts: self.limits.levels[node], tasks: 0 };
            room.amounts = room.amounts.least(above(level).amounts);
        }
        room
    }

    fn service_index(&self, id: &ServiceId) -> Option<usize> {
        self.services.binary_search_by_key(id, |service| service.id).ok()
    }

    fn node_index(&self, id: &NodeId) -> Option<usize> {
        self.field.nodes.binary_search_by_key(id, |node| node.id).ok()
    }
}
