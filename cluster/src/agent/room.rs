//! Room: whether a task fits beside those that run on here though no node has their slots.
//!
//! Input: what runs here, the plan, what this node has. Output: whether a task that is assigned here may start. The plan
//! knows nothing of what runs: when nodes are lost and the others are full, it may give a slot to this node and leave one
//! without a node that runs here. The task that runs goes on and the new one waits. Tasks that move elsewhere do not
//! count; they end soon. See `docs/protocol.md#tasks`.

use alloc::collections::BTreeMap;

use super::{Agent, Sources};
use crate::id::{NodeId, ServiceId};
use crate::intent::service::Service;
use crate::plan::placement::Amounts;
use crate::plan::{capacity, reserved};
use crate::reports::task::TaskState;

/// What is left for new tasks. Without tasks that run on it is what the plan says, and nothing is counted.
#[derive(Debug)]
pub(super) struct Room {
    left: Option<Amounts>,
    mates: BTreeMap<ServiceId, u32>,
}

impl Agent {
    /// Returns what is left beside the tasks that stay: those assigned here, and those whose slots no node has.
    pub(super) fn room(&self, sources: Sources<'_>) -> Room {
        let mut room = Room { left: None, mates: BTreeMap::new() };
        let live = self.tasks.values().filter(|task| task.report.state < TaskState::Stopping);
        let stays = |node: Option<&NodeId>| node.is_none_or(|node| *node == self.own);
        let staying = live.filter(|task| stays(sources.plan.assignments.get(&task.slot())));
        let own = sources.membership.members().get(&self.own);
        let (mut left, mut counts) = (own.map(|member| capacity(&member.meta)).unwrap_or_default(), false);
        for task in staying {
            counts |= sources.plan.assignments.get(&task.slot()).is_none();
            *room.mates.entry(task.report.service).or_default() += 1;
            let service = sources.intent.service(&task.report.service);
            left = left.minus(service.map(|service| reserved(&service.spec)).unwrap_or_default());
        }
        room.left = counts.then_some(left);
        room
    }
}

impl Room {
    /// Takes what a task of `service` needs, if it is there; tells whether it was.
    pub(super) fn take(&mut self, service: &Service) -> bool {
        let Some(left) = &mut self.left else { return true };
        let mates = self.mates.entry(service.id).or_default();
        let most = service.spec.placement.replicas_per_node_max;
        let fits = reserved(&service.spec).fits(left) && (most == 0 || *mates < most);
        if fits {
            *mates += 1;
            *left = left.minus(reserved(&service.spec));
        }
        fits
    }
}
