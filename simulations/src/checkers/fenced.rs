//! Fenced services: at no moment do two nodes run a task of one slot, whatever separates them.
//!
//! Containers are the real ones: they outlive their daemons, until their lease is over. See `docs/design/0032-fenced-services.md`.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_cluster::{ServiceId, TaskId, TaskOrder};

use crate::node::Node;

/// How long a container of a fenced service outlives its daemon.
pub(crate) const LEASE: Duration = Duration::from_secs(20);

/// The services that were started as fenced ones; none changes in its life.
#[derive(Debug, Default)]
pub(crate) struct Fenced(BTreeSet<ServiceId>);

impl Fenced {
    /// A node starts a container.
    pub(crate) fn starts(&mut self, node: &Node, order: &TaskOrder) {
        let service = node.core.as_ref().and_then(|core| core.intent().service(&order.service));
        if service.is_some_and(|service| service.spec.is_fenced()) {
            self.0.insert(order.service);
        }
    }

    /// Tells whether this service is fenced.
    pub(crate) fn contains(&self, service: &ServiceId) -> bool {
        self.0.contains(service)
    }

    /// Returns the containers of fenced services that run on a node.
    pub(crate) fn running(&self, node: &Node) -> Vec<TaskId> {
        node.containers.running().filter(|order| self.contains(&order.service)).map(|order| order.id).collect()
    }

    /// A container runs: no other node runs one in its slot, if it is of a fenced service.
    pub(crate) fn runs(&self, nodes: &[Node], at: usize, order: &TaskOrder) -> Result<(), String> {
        let twin = |machine: &Node| {
            let mut running = machine.containers.running();
            running.any(|there| (there.service, there.slot) == (order.service, order.slot))
        };
        let others = nodes.iter().enumerate().filter(|(other, _)| *other != at && self.contains(&order.service));
        match others.into_iter().find(|(_, machine)| twin(machine)) {
            Some((other, _)) => {
                Err(format!("nodes {other} and {at} both run slot {} of {}", order.slot, order.service_name))
            }
            None => Ok(()),
        }
    }
}
