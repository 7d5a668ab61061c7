//! Views: what the edge reads — levels of the present plan and planes, never edges.

pub(crate) mod compute;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::id::{NodeId, ServiceId, TaskId};
use crate::intent::conflict::Conflict;
use crate::intent::job::SlotSet;
use crate::intent::node::NodeIntent;
use crate::intent::object::{DataKind, DataSpec, NetworkSpec, Objects, Sealed};
use crate::intent::service::Service;
use crate::intent::service::container::VolumeName;
use crate::intent::update::Verdict;
use crate::membership::member::{Member, MemberState};
use crate::plan::addresses::Block;
use crate::plan::names::Names;
use crate::plan::placement::{Assignments, Inputs};
use crate::plan::routes::Routes;
use crate::plan::volumes::Bond;
use crate::reports::task::TaskReport;

/// All that the edge may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Views {
    /// Whether this node acts: it has caught up with the others once, or has given up waiting.
    pub settled: bool,
    /// Whether this node sees the majority of the members, without which it runs no task of a fenced service.
    pub majority: bool,
    /// Every known member, this node included, in order of id.
    pub members: Vec<Member>,
    /// Each member's block of the overlay, this node's included.
    pub blocks: BTreeMap<NodeId, Block>,
    /// Every service, in order of name.
    pub services: Vec<Service>,
    /// How far the rollouts of services have come, of those that ever had one.
    pub rollouts: BTreeMap<ServiceId, RolloutView>,
    /// What operators want of nodes.
    pub nodes: BTreeMap<NodeId, NodeIntent>,
    /// Which node runs each slot, by the plan; the slots of global services have numbers that stand for nodes.
    pub assignments: Assignments,
    /// Of each job, the slots that have done their work.
    pub completed: BTreeMap<ServiceId, SlotSet>,
    /// Which node each named volume lives on.
    pub volumes: BTreeMap<VolumeName, NodeId>,
    /// How services are bound by their volumes; those that are not are left out.
    pub bonds: BTreeMap<ServiceId, Bond>,
    /// The networks that operators made.
    pub networks: Objects<NetworkSpec>,
    /// The secrets.
    pub secrets: Objects<DataSpec>,
    /// The configs.
    pub configs: Objects<DataSpec>,
    /// The sealed bytes of both.
    pub sealed: Sealed,
    /// What placement was computed from: all that a forecast needs.
    pub inputs: Arc<Inputs>,
    /// Every task that any node reports or the plan wants, in order of service, slot, newest first.
    pub tasks: Vec<TaskView>,
    /// Which nodes have which image, as told by [`crate::Input::Images`]; nodes that are up only.
    pub images: BTreeMap<String, BTreeSet<NodeId>>,
    /// What DNS answers.
    pub names: Names,
    /// Where the overlay's packets go.
    pub routes: Routes,
    /// Whether the shoal is agreed.
    pub agreement: Agreement,
    /// Objects that were written concurrently, until somebody writes them again.
    pub conflicts: Vec<Conflict>,
}

/// How far the rollout of a service has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutView {
    /// Whether it goes on, or how it ended.
    pub verdict: Verdict,
    /// One of the tasks whose failure ended it.
    pub task: Option<TaskId>,
    /// When that was, in milliseconds since the Unix epoch by its author's clock.
    pub ruled_ms: Option<u64>,
    /// How many slots have a node.
    pub slots: u32,
    /// How many of these have arrived.
    pub arrived: u32,
    /// How many slots failed.
    pub failed: u32,
}

/// One task as the whole shoal sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskView {
    /// Where it runs or ran.
    pub node: NodeId,
    /// What its node said last.
    pub report: TaskReport,
    /// Whether its node is up: otherwise its report does not count.
    pub reachable: bool,
    /// Whether the plan wants it, or a successor of it in this slot on this node.
    pub desired: bool,
}

/// What this node and the others know, compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Digest of the intent plane here.
    pub intent: [u8; 32],
    /// Digest of the plan here: assignments, names and routes, alike on all nodes with the same planes.
    pub plan: [u8; 32],
    /// What each other member that is up said last of its own.
    pub peers: BTreeMap<NodeId, PeerAgreement>,
}

/// What one peer said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAgreement {
    /// Digest of its intent plane.
    pub intent: [u8; 32],
    /// Digest of its plan.
    pub plan: [u8; 32],
    /// How many intent writes known here it did not know then.
    pub behind: u64,
    /// How long ago it said so, in milliseconds.
    pub age_ms: u64,
}

impl Views {
    /// Returns the members that operators see: all but those that were removed and have stayed away since.
    pub fn listed(&self) -> impl Iterator<Item = &Member> + Clone {
        let removed = |id: &NodeId| self.nodes.get(id).is_some_and(|intent| intent.removed);
        self.members.iter().filter(move |member| member.state != MemberState::Left || !removed(&member.id))
    }

    /// Returns the member with this id.
    pub fn member(&self, id: &NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == *id)
    }

    /// Returns how far the rollout of a service has come; one that never had any has completed it.
    pub fn verdict(&self, service: &ServiceId) -> Verdict {
        self.rollouts.get(service).map_or(Verdict::Completed, |rollout| rollout.verdict)
    }

    /// Returns the secrets, or the configs.
    pub fn data(&self, kind: DataKind) -> &Objects<DataSpec> {
        match kind {
            DataKind::Secret => &self.secrets,
            DataKind::Config => &self.configs,
        }
    }

    /// Tells whether a slot waits for room on the node that these assignments give it: none of its tasks runs there, and tasks do
    /// whose slots no node has, which run on as long as nothing else can be done for them.
    pub fn waits(&self, assignments: &Assignments, slot: &(ServiceId, u32)) -> bool {
        let Some(at) = assignments.get(slot) else { return false };
        let live = self.tasks.iter().filter(|task| task.node == *at && task.reachable && !task.report.state.is_final());
        let slots: BTreeSet<(ServiceId, u32)> = live.map(|task| (task.report.service, task.report.slot)).collect();
        !slots.contains(slot) && slots.iter().any(|other| assignments.get(other).is_none())
    }

    /// Returns the task with this id.
    pub fn task(&self, id: &TaskId) -> Option<&TaskView> {
        self.tasks.iter().find(|task| task.report.id == *id)
    }
}
