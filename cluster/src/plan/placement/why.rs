//! Why a slot is where it is, or nowhere: words for operators, from what placement knows.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::input::{NodeInput, ServiceInput};
use super::tier::{POSITIONS, walk};
use super::{NOWHERE, PINNED, Placement};
use crate::id::{NodeId, ServiceId};

/// Why a slot is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The node is the first choice of the slot, spread over nodes and labels considered.
    Home,
    /// The nodes that it ranks higher have no room for it, or have as much as falls to them.
    Displaced {
        /// Those nodes, its first choice first.
        refused: Vec<NodeId>,
    },
    /// No node that it ranks high has room for it; of all others this one was left.
    LastRoom,
    /// Its node is paused and keeps what runs there.
    Pinned,
    /// The service is global: it runs once on every node that may run it.
    Global,
    /// It is a slot of a job and has done its work.
    Done,
    /// It is a slot of a job, and another one is done first.
    NotYet {
        /// That slot.
        before: u32,
    },
    /// No node can run it.
    Pending(Obstacles),
}

/// What keeps a slot from the nodes that are up. Each node counts once, under the first that applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// Nodes that are up.
    pub nodes: usize,
    /// Nodes that are paused or drained.
    pub unavailable: usize,
    /// Nodes that do not meet a constraint, by constraint, as it was written.
    pub constraints: Vec<(String, usize)>,
    /// Nodes of another system or architecture than the image's.
    pub platform: usize,
    /// Nodes that have less than the task reserves, even if they ran nothing else.
    pub too_small: usize,
    /// Nodes that run as many replicas as one node may.
    pub replicas_max: usize,
    /// Nodes whose cpu or memory is reserved by others.
    pub full: usize,
}

impl Placement {
    /// Returns why a slot is where it is; none if there is no such slot.
    pub fn why(&self, service: &ServiceId, slot: u32) -> Option<Why> {
        let number = self.service_index(service)?;
        let (of, input) = (&self.services[number], &self.inputs.services[number]);
        if input.job.as_ref().is_some_and(|job| job.done.contains(slot)) {
            return Some(Why::Done);
        }
        if of.global {
            return Some(Why::Global);
        }
        let slot = match &input.job {
            None => slot,
            Some(job) if slot >= job.slots => return None,
            Some(job) => {
                let lane = job.lane(input.replicas, slot);
                let turn = job.turn(input.replicas, lane).filter(|turn| *turn != slot);
                match turn {
                    Some(before) => return Some(Why::NotYet { before }),
                    None => lane,
                }
            }
        };
        let before = slot.checked_sub(1).filter(|_| slot <= input.replicas)?;
        if slot > of.replicas {
            return Some(Why::Pending(self.obstacles(service)?));
        }
        let index = of.first as usize + before as usize;
        let position = self.slots.position[index];
        Some(match position {
            PINNED => Why::Pinned,
            _ if self.slots.node[index] == NOWHERE => Why::Pending(self.obstacles(service)?),
            0 => Why::Home,
            POSITIONS => Why::LastRoom,
            _ => {
                let before = (0..position).map(|before| walk(&self.field, of, &self.slots, index as u32, before));
                let mut refused: Vec<NodeId> = Vec::new();
                for node in before.map(|node| self.field.nodes[usize::from(node)].id) {
                    if !refused.contains(&node) {
                        refused.push(node);
                    }
                }
                Why::Displaced { refused }
            }
        })
    }

    /// Returns what keeps another slot of a service from each node; none if there is no such service.
    pub fn obstacles(&self, service: &ServiceId) -> Option<Obstacles> {
        let index = self.service_index(service)?;
        let of = &self.services[index];
        let input = &self.inputs.services[index];
        let mut obstacles = Obstacles { nodes: self.inputs.nodes.len(), ..Obstacles::default() };
        for node in &self.inputs.nodes {
            let at = self.node_index(&node.id)? as u16;
            let mates = self.slots.node[of.range()].iter().filter(|node| **node == at).count();
            if !obstacles.count(input, node) {
                if input.replicas_per_node_max > 0 && mates >= input.replicas_per_node_max as usize {
                    obstacles.replicas_max += 1;
                } else {
                    obstacles.full += 1;
                }
            }
        }
        Some(obstacles)
    }
}

impl Obstacles {
    /// Counts a node under what is wrong with it, whoever runs there; tells whether something is.
    fn count(&mut self, service: &ServiceInput, node: &NodeInput) -> bool {
        if !node.active {
            self.unavailable += 1;
        } else if let Some(constraint) = service.constraints.iter().find(|constraint| !node.meets(constraint)) {
            let text = constraint.to_string();
            match self.constraints.iter_mut().find(|(known, _)| *known == text) {
                Some((_, count)) => *count += 1,
                None => self.constraints.push((text, 1)),
            }
        } else if !node.runs(&service.platforms) {
            self.platform += 1;
        } else if !service.reserved.fits(&node.capacity) {
            self.too_small += 1;
        } else {
            return false;
        }
        true
    }
}

impl fmt::Display for Obstacles {
    /// In Swarm's manner: `no suitable node (…; …)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no suitable node (no node is up)");
        }
        f.write_str("no suitable node (")?;
        let mut separator = "";
        let mut say = |f: &mut fmt::Formatter<'_>, what: fmt::Arguments<'_>, nodes: usize| {
            if nodes == 0 {
                return Ok(());
            }
            let result = write!(f, "{separator}{what} on {nodes} node{}", if nodes == 1 { "" } else { "s" });
            separator = "; ";
            result
        };
        say(f, format_args!("not available"), self.unavailable)?;
        for (constraint, nodes) in &self.constraints {
            say(f, format_args!("scheduling constraint {constraint} not satisfied"), *nodes)?;
        }
        say(f, format_args!("unsupported platform"), self.platform)?;
        say(f, format_args!("more reserved than the node has"), self.too_small)?;
        say(f, format_args!("max replicas per node limit exceeded"), self.replicas_max)?;
        say(f, format_args!("insufficient resources"), self.full)?;
        f.write_str(")")
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home => f.write_str("its first choice"),
            Self::Displaced { refused } => {
                write!(f, "no room, or a full share already, on {} node(s) that it ranks higher", refused.len())
            }
            Self::LastRoom => f.write_str("no room, or a full share already, on every node that it ranks high"),
            Self::Pinned => f.write_str("its node is paused and keeps what runs there"),
            Self::Global => f.write_str("global: one on every node that may run it"),
            Self::Done => f.write_str("it has done its work"),
            Self::NotYet { before } => write!(f, "its turn comes after slot {before}, as many run as may at once"),
            Self::Pending(obstacles) => obstacles.fmt(f),
        }
    }
}
