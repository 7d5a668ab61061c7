//! What placement is computed from: services and nodes as plain values, in whatever order.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::id::{NodeId, ServiceId};
use crate::intent::constraint::{Attribute, Constraint, Spread};
use crate::intent::job::SlotSet;
use crate::mutation::{self, Mutation};

/// Amounts of what is reserved and what a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amounts {
    /// Billionths of a CPU.
    pub nano_cpus: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

impl Amounts {
    /// Tells whether these amounts fit into `room`.
    pub fn fits(&self, room: &Self) -> bool {
        self.nano_cpus <= room.nano_cpus && self.memory_bytes <= room.memory_bytes
    }

    /// Returns the sum.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            nano_cpus: self.nano_cpus.saturating_add(other.nano_cpus),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// Returns what is left, and nothing where there is less.
    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            nano_cpus: self.nano_cpus.saturating_sub(other.nano_cpus),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }

    /// Returns the lesser of each.
    pub(super) fn least(self, other: Self) -> Self {
        Self { nano_cpus: self.nano_cpus.min(other.nano_cpus), memory_bytes: self.memory_bytes.min(other.memory_bytes) }
    }

    /// Returns one number for both, in thousandths of a CPU; a CPU counts as much as 4 GiB.
    pub(super) fn size(&self) -> u64 {
        (self.nano_cpus / 1_000_000).saturating_add(self.memory_bytes.div_ceil(4 << 20))
    }
}

/// One service, as far as placement is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceInput {
    /// Which.
    pub id: ServiceId,
    /// How many slots it has; of no account if it is global.
    pub replicas: u32,
    /// Whether every node that may run it does, once.
    pub global: bool,
    /// What there is to do, if it is a job: its slots are then shared out among so many lanes as it has `replicas`.
    pub job: Option<Job>,
    /// What each task reserves.
    pub reserved: Amounts,
    /// What a node must be.
    pub constraints: Vec<Constraint>,
    /// Systems and architectures of which a node must have one; any if empty.
    pub platforms: Vec<(String, String)>,
    /// Over which labels its tasks are spread, the first first.
    pub spread: Vec<Spread>,
    /// How many of its tasks one node may run; 0 is no bound.
    pub replicas_per_node_max: u32,
}

impl ServiceInput {
    /// Returns a service of `replicas` slots that asks for nothing.
    pub fn plain(id: ServiceId, replicas: u32) -> Self {
        Self {
            id,
            replicas,
            global: false,
            job: None,
            reserved: Amounts::default(),
            constraints: Vec::new(),
            platforms: Vec::new(),
            spread: Vec::new(),
            replicas_per_node_max: 0,
        }
    }
}

impl ServiceInput {
    /// Tells whether a node may run its tasks, their size apart.
    pub fn may_run_on(&self, node: &NodeInput) -> bool {
        let meets = |constraint| node.meets(constraint) || mutation::on(Mutation::ConstraintsIgnored);
        self.constraints.iter().all(meets) && node.runs(&self.platforms)
    }
}

/// What there is to do in a job. Where the lanes run is placed; which slots they run follows from what is done, so that it
/// moves nothing: each lane does every so-manieth slot, in order of number, whatever the others do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// How many slots it has, from 0 on, if it is not global.
    pub slots: u32,
    /// The slots that have done their work.
    pub done: SlotSet,
}

impl Job {
    /// Returns the lane of a slot.
    pub fn lane(&self, lanes: u32, slot: u32) -> u32 {
        slot % lanes.max(1) + 1
    }

    /// Returns the slot whose turn it is in a lane; none if the lane has nothing left to do.
    pub fn turn(&self, lanes: u32, lane: u32) -> Option<u32> {
        (lane.saturating_sub(1)..self.slots).step_by(lanes.max(1) as usize).find(|slot| !self.done.contains(*slot))
    }
}

/// One node that is up, as far as placement is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInput {
    /// Which.
    pub id: NodeId,
    /// Its name.
    pub hostname: String,
    /// Whether it is a manager.
    pub manager: bool,
    /// Its system, such as `linux`.
    pub os: String,
    /// Its architecture, such as `amd64`.
    pub architecture: String,
    /// What operators wrote on it.
    pub labels: BTreeMap<String, String>,
    /// What it was started with.
    pub engine_labels: BTreeMap<String, String>,
    /// What it has.
    pub capacity: Amounts,
    /// Whether it takes tasks; otherwise it keeps those that [`Inputs::pinned`] names.
    pub active: bool,
}

impl NodeInput {
    /// Returns what a constraint or preference looks at; empty if the node has no such label.
    pub fn attribute(&self, attribute: &Attribute) -> String {
        match attribute {
            Attribute::Id => self.id.to_string(),
            Attribute::Hostname => self.hostname.clone(),
            Attribute::Role => String::from(if self.manager { "manager" } else { "worker" }),
            Attribute::Os => self.os.clone(),
            Attribute::Architecture => self.architecture.clone(),
            Attribute::NodeLabel(name) => self.labels.get(name).cloned().unwrap_or_default(),
            Attribute::EngineLabel(name) => self.engine_labels.get(name).cloned().unwrap_or_default(),
        }
    }

    /// Tells whether the node meets a constraint.
    pub fn meets(&self, constraint: &Constraint) -> bool {
        let (present, wanted) = (self.attribute(&constraint.attribute), constraint.value.as_str());
        let same = match constraint.attribute {
            Attribute::Architecture => same_architecture(&present, wanted),
            Attribute::Id
            | Attribute::Hostname
            | Attribute::Role
            | Attribute::Os
            | Attribute::NodeLabel(_)
            | Attribute::EngineLabel(_) => present.eq_ignore_ascii_case(wanted),
        };
        same == constraint.equal
    }

    /// Tells whether an image for these platforms runs here.
    pub fn runs(&self, platforms: &[(String, String)]) -> bool {
        let matches = |(os, architecture): &(String, String)| {
            (os.is_empty() || os.eq_ignore_ascii_case(&self.os))
                && (architecture.is_empty() || same_architecture(architecture, &self.architecture))
        };
        platforms.is_empty() || platforms.iter().any(matches)
    }
}

fn same_architecture(one: &str, other: &str) -> bool {
    let canonical = |text: &str| match text.to_ascii_lowercase().as_str() {
        "x86_64" | "x86-64" => String::from("amd64"),
        "aarch64" => String::from("arm64"),
        other => String::from(other),
    };
    canonical(one) == canonical(other)
}

/// All that placement is computed from. The order of services and nodes does not matter; ids are unique.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Every service.
    pub services: Vec<ServiceInput>,
    /// Every node that is up.
    pub nodes: Vec<NodeInput>,
    /// Slots that stay on a node which takes no others: what runs on a paused node.
    pub pinned: BTreeMap<(ServiceId, u32), NodeId>,
}
