//! What must be true at every moment, faults or not: nothing is double that must be single, nothing is stopped before
//! its successor runs, nothing is told before it is durable.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use shoal_cluster::intent::key::Key;
use shoal_cluster::record::Record;
use shoal_cluster::{Cluster, ServiceId, TaskOrder};

use super::fenced::Fenced;
use super::jobs::{self, Done};
use super::rollouts::{self, Moves};
use crate::containers::{Container, Phase};
use crate::disk::Disk;
use crate::node::Node;

/// How long ago a successor may have run when its predecessor is stopped: news of its end may be that old. A node that
/// is left alone needs a minute and a half to notice that twelve others are gone.
const SUCCESSOR_US: u64 = 150_000_000;

/// What the checkers of every moment remember.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// When the task with this address ended.
    addresses: BTreeMap<Ipv6Addr, u64>,
    /// When a task in this slot ended last, on each node.
    slots: BTreeMap<(ServiceId, u32), BTreeMap<usize, u64>>,
    moves: Moves,
    /// What jobs have really done.
    pub(crate) done: Done,
    /// What is remembered of fenced services.
    pub(crate) fenced: Fenced,
}

impl Watch {
    /// A container has ended, by itself or because it was asked to or its machine lost its power.
    pub(crate) fn ended(&mut self, at_us: u64, node: usize, container: &Container, by_itself: bool) {
        let order = &container.order;
        self.moves.ended(order, container.ran_us(at_us), by_itself);
        if container.phase == Phase::Starting {
            return;
        }
        self.addresses.insert(order.addresses.v6, at_us);
        self.slots.entry((order.service, order.slot)).or_default().insert(node, at_us);
    }

    /// Tells whether a task of this revision, or of any if that is open, ended by itself in a slot: its restart policy may
    /// want no other.
    pub(super) fn may_be_over(&self, slot: (ServiceId, u32), revision: Option<u64>) -> bool {
        self.moves.ended_by_itself(slot, revision)
    }

    /// Returns when the task with this address ended; the start of the world if there never was one.
    pub(crate) fn ended_us(&self, address: &Ipv6Addr) -> u64 {
        self.addresses.get(address).copied().unwrap_or(0)
    }

    /// A node starts a container: it has none in that slot already, unless the slot moves start-first; and not too many
    /// slots move at once.
    pub(crate) fn starts(&mut self, at_us: u64, nodes: &[Node], at: usize, order: &TaskOrder) -> Result<(), String> {
        let node = &nodes[at];
        if let Some(core) = &node.core {
            jobs::starts(core, order)?;
        }
        let twin = node.containers.iter().find(|container| {
            let there = &container.order;
            let same = (there.service, there.slot) == (order.service, order.slot);
            container.phase != Phase::Stopping && same && !rollouts::may_stand_beside(node, container, order)
        });
        match twin {
            Some(twin) if twin.order.id != order.id => {
                let (slot, name, there) = (order.slot, &order.service_name, (twin.order.revision, twin.phase));
                Err(format!("starts a second task in slot {slot} of {name}, {} beside {there:?}", order.revision))
            }
            Some(_) | None => self.moves.starts(at_us, nodes, at, order),
        }
    }

    /// A container runs: nobody else has its IPv6 address, on whichever side of a partition.
    pub(crate) fn runs(&self, nodes: &[Node], node: usize, order: &TaskOrder) -> Result<(), String> {
        for (other, machine) in nodes.iter().enumerate() {
            let twin = machine.containers.running().find(|there| there.addresses.v6 == order.addresses.v6);
            if twin.is_some_and(|twin| twin.id != order.id) {
                return Err(format!("nodes {other} and {node} both run a task with {}", order.addresses.v6));
            }
        }
        Ok(())
    }

    /// A node stops a container that runs. If it is still wanted, its successor ran somewhere, not long ago; if its slot
    /// moves to another revision, not too many do.
    pub(crate) fn stops(&mut self, at_us: u64, nodes: &[Node], node: usize, order: &TaskOrder) -> Result<(), String> {
        let Some(core) = &nodes[node].core else { return Ok(()) };
        let slot = (order.service, order.slot);
        let wanted = core.intent().service(&order.service).is_some_and(|service| {
            let (revision, _) = service.effective(core.intent().verdict(service));
            // A job's task that has to go ends before another starts.
            revision == order.revision && service.spec.has_slot(order.slot) && !service.spec.mode.is_job()
        });
        // It ends before its successor starts, and wherever the majority is lost.
        if self.fenced.contains(&order.service) {
            return Ok(());
        }
        let assigned = core.plan().assignments.get(&slot);
        let elsewhere = assigned.is_some_and(|assigned| *assigned != nodes[node].id);
        let block = core.plan().blocks.get(&nodes[node].id);
        let at_home = block.is_some_and(|block| order.addresses.iter().all(|address| block.contains(address)));
        if wanted && at_home && assigned == Some(&nodes[node].id) {
            let twin = |there: &&TaskOrder| (there.service, there.slot) == slot && there.id != order.id;
            return match nodes[node].containers.running().find(twin) {
                Some(_) => Ok(()),
                None => Err(format!("stops slot {} of {}, which it is to run", order.slot, order.service_name)),
            };
        }
        if !wanted || !elsewhere || !at_home {
            return self.moves.stops(at_us, nodes, node, order);
        }
        let others = nodes.iter().enumerate().filter(|(other, _)| *other != node);
        let mut running = others.flat_map(|(_, machine)| machine.containers.running());
        let runs = running.any(|there| (there.service, there.slot) == slot);
        let recent = |(other, ended): (&usize, &u64)| *other != node && at_us.saturating_sub(*ended) < SUCCESSOR_US;
        let ran = self.slots.get(&slot).is_some_and(|ends| ends.iter().any(recent));
        // Where it has to go, and the last that its slot will have failed elsewhere, nothing better will come.
        let there = assigned.and_then(|node| core.reports().of(node)).map(|report| report.tasks.values());
        let over = there.into_iter().flatten().any(|task| task.over && (task.service, task.slot) == slot);
        if runs || ran || over {
            return Ok(());
        }
        Err(format!("stops slot {} of {} before another runs", order.slot, order.service_name))
    }

    /// A node has started: its incarnation is above every one that it may have told.
    pub(crate) fn started(&self, node: &Node) -> Result<(), String> {
        let now = node.core.as_ref().map_or(0, |core| core.membership().own().incarnation);
        let told = node.told;
        if now > told { Ok(()) } else { Err(format!("starts with incarnation {now}, but has told {told} before")) }
    }
}

/// A write was acknowledged: what its writer holds of that register is on its own disk.
pub(crate) fn durable(core: &Cluster, disk: &Disk, key: &Key) -> Result<(), String> {
    for version in core.intent().versions(key) {
        let written = disk.records().iter().rev().any(|record| match Record::decode(record) {
            Ok(Record::Entry(entry)) => entry.version.dot == version.dot,
            Ok(Record::Start(_) | Record::Vector(_) | Record::Member(_) | Record::Collected(_) | Record::Gone(_))
            | Err(_) => false,
        });
        if !written {
            return Err(format!("acknowledged a write of {} that is not on its disk", key.name));
        }
    }
    Ok(())
}
