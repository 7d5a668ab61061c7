//! Assignments: which node runs each slot, compactly.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{NOWHERE, Placement};
use crate::hash;
use crate::id::{NodeId, ServiceId};

/// Which node runs each slot of each service. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Assignments(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// In order of id.
    nodes: Vec<NodeId>,
    services: BTreeMap<ServiceId, Slots>,
}

/// The slots of one service, by number, as indices of nodes.
#[derive(Debug)]
enum Slots {
    /// From 1 on, holes included.
    Replicated(Vec<u16>),
    /// By number: that of the node, or those of a job whose turn it is.
    Numbered(BTreeMap<u32, u16>),
}

impl Slots {
    fn numbered(&self) -> impl Iterator<Item = (u32, u16)> + '_ {
        let (replicated, numbered) = match self {
            Self::Replicated(nodes) => (Some(nodes), None),
            Self::Numbered(nodes) => (None, Some(nodes)),
        };
        let replicated = replicated.into_iter().flatten().zip(1..).map(|(node, number)| (number, *node));
        replicated.chain(numbered.into_iter().flatten().map(|(number, node)| (*number, *node)))
    }
}

impl Assignments {
    /// Returns the node that runs a slot.
    pub fn get(&self, slot: &(ServiceId, u32)) -> Option<&NodeId> {
        let node = match self.0.services.get(&slot.0)? {
            Slots::Replicated(nodes) => *nodes.get((slot.1 as usize).checked_sub(1)?)?,
            Slots::Numbered(nodes) => *nodes.get(&slot.1)?,
        };
        self.0.nodes.get(usize::from(node))
    }

    /// Returns every slot that has a node, in order.
    pub fn iter(&self) -> impl Iterator<Item = ((ServiceId, u32), NodeId)> + '_ {
        self.indexed().filter_map(|(slot, node)| Some((slot, *self.0.nodes.get(usize::from(node))?)))
    }

    /// Returns the slots of one node, in order.
    pub fn of(&self, node: &NodeId) -> impl Iterator<Item = (ServiceId, u32)> + '_ {
        let index = self.0.nodes.binary_search(node).ok();
        self.indexed().filter(move |(_, at)| Some(usize::from(*at)) == index).map(|(slot, _)| slot)
    }

    /// Returns the slots of one service that have a node, in order.
    pub fn slots(&self, service: &ServiceId) -> impl Iterator<Item = (u32, NodeId)> + '_ {
        let slots = self.0.services.get_key_value(service).into_iter().flat_map(|(_, slots)| slots.numbered());
        slots.filter_map(|(number, node)| Some((number, *self.0.nodes.get(usize::from(node))?)))
    }

    /// Returns how many slots have a node.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Tells whether no slot has a node.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Returns a digest that is the same on nodes that assign alike.
    pub fn digest(&self) -> [u8; 32] {
        let mut bytes = Vec::new();
        for ((service, slot), node) in self.iter() {
            bytes.extend(service.0);
            bytes.extend(slot.to_be_bytes());
            bytes.extend(node.0);
        }
        hash::digest("assignments", &[&bytes])
    }

    fn indexed(&self) -> impl Iterator<Item = ((ServiceId, u32), u16)> + '_ {
        self.0.services.iter().flat_map(|(id, slots)| slots.numbered().map(|(number, node)| ((*id, number), node)))
    }
}

impl PartialEq for Assignments {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Assignments {}

impl FromIterator<((ServiceId, u32), NodeId)> for Assignments {
    /// Makes assignments from slots and nodes, for what reads them and for tests.
    fn from_iter<T: IntoIterator<Item = ((ServiceId, u32), NodeId)>>(slots: T) -> Self {
        let slots: BTreeMap<(ServiceId, u32), NodeId> = slots.into_iter().collect();
        let mut nodes: Vec<NodeId> = slots.values().copied().collect();
        nodes.sort_unstable();
        nodes.dedup();
        let mut services: BTreeMap<ServiceId, Slots> = BTreeMap::new();
        for ((service, number), node) in slots {
            let index = nodes.partition_point(|other| *other < node) as u16;
            let Slots::Numbered(of) = services.entry(service).or_insert_with(|| Slots::Numbered(BTreeMap::new()))
            else {
                continue;
            };
            of.insert(number, index);
        }
        Self(Arc::new(Inner { nodes, services }))
    }
}

/// Returns a number for each node by which its slot of every global service goes: a hash of its id, so that it rarely
/// depends on the other nodes. Never 0.
pub(crate) fn node_numbers(nodes: impl Iterator<Item = NodeId>) -> BTreeMap<NodeId, u32> {
    let mut taken = alloc::collections::BTreeSet::new();
    let numbers = nodes.map(|node| {
        let mut number = (hash::rank64("placement-global", &[&node.0]) >> 33) as u32;
        while number == 0 || !taken.insert(number) {
            number = number.wrapping_add(1);
        }
        (node, number)
    });
    numbers.collect()
}

impl Placement {
    /// Returns which node runs each slot.
    pub fn assignments(&self) -> Assignments {
        let nodes: Vec<NodeId> = self.field.nodes.iter().map(|node| node.id).collect();
        let numbers = if self.globals.is_empty() { BTreeMap::new() } else { node_numbers(nodes.iter().copied()) };
        let services = self.services.iter().zip(&self.inputs.services).enumerate().map(|(index, (service, input))| {
            let placed = &self.slots.node[service.range()];
            let slots = match (self.globals.get(&(index as u16)), &input.job) {
                (Some(at), job) => {
                    let slots = at.iter().map(|node| (numbers[&nodes[usize::from(*node)]], *node));
                    let done = |slot: u32| job.as_ref().is_some_and(|job| job.done.contains(slot));
                    Slots::Numbered(slots.filter(|(slot, _)| !done(*slot)).collect())
                }
                (None, Some(job)) => {
                    let turns = (1..).zip(placed).filter(|(_, node)| **node != NOWHERE);
                    let turns = turns.filter_map(|(lane, node)| Some((job.turn(input.replicas, lane)?, *node)));
                    Slots::Numbered(turns.collect())
                }
                (None, None) => Slots::Replicated(placed.to_vec()),
            };
            (service.id, slots)
        });
        let services = services.collect();
        Assignments(Arc::new(Inner { nodes, services }))
    }

    /// Returns how many slots have no node.
    pub fn pending(&self) -> usize {
        let wanted = self.inputs.services.iter().zip(&self.services).filter(|(_, service)| !service.global);
        let beyond = wanted.map(|(input, service)| input.replicas as usize - service.replicas as usize);
        beyond.sum::<usize>() + self.slots.node.iter().filter(|node| **node == NOWHERE).count()
    }
}
