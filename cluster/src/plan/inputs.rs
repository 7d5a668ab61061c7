//! Inputs of placement: what the planes say of services and nodes.

use alloc::collections::BTreeMap;

use super::placement::{Amounts, Inputs, Job, NodeInput, ServiceInput};
use super::volumes::{self, Bond};
use crate::id::{NodeId, ServiceId};
use crate::intent::Intent;
use crate::intent::node::Availability;
use crate::intent::service::{Service, ServiceSpec};
use crate::membership::Membership;
use crate::membership::member::{Member, NodeMeta, Role};
use crate::mutation::{self, Mutation};
use crate::reports::Reports;
use crate::reports::task::TaskState;

/// Returns what placement is computed from.
pub(super) fn inputs(intent: &Intent, membership: &Membership, reports: &Reports) -> Inputs {
    let bonds = volumes::bonds(intent);
    let up = membership.members().values().filter(|member| member.state.is_up());
    Inputs {
        services: intent.services().map(|one| service(one, intent, bonds.get(&one.id))).collect(),
        nodes: up.map(|member| node(member, intent)).collect(),
        pinned: pinned(intent, membership, reports),
    }
}

fn service(service: &Service, intent: &Intent, bond: Option<&Bond>) -> ServiceInput {
    let (spec, placement) = (&service.spec, &service.spec.placement);
    let mut input = ServiceInput {
        id: service.id,
        replicas: if intent.is_done(service) { 0 } else { spec.lanes() },
        job: spec.mode.is_job().then(|| Job { slots: spec.replicas, done: intent.completed(service) }),
        global: spec.mode.is_global(),
        reserved: reserved(spec),
        constraints: placement.constraints.clone(),
        platforms: placement.platforms.clone(),
        spread: placement.spread.clone(),
        replicas_per_node_max: placement.replicas_per_node_max,
    };
    if let Some(bond) = bond {
        bond.bind(&mut input);
    }
    input
}

fn node(member: &Member, intent: &Intent) -> NodeInput {
    let (meta, wanted) = (&member.meta, intent.nodes().get(&member.id).map(|node| &node.spec));
    NodeInput {
        id: member.id,
        hostname: meta.name.as_str().into(),
        manager: meta.role == Role::Manager,
        os: meta.os.clone(),
        architecture: meta.architecture.clone(),
        labels: wanted.map(|spec| spec.labels.clone()).unwrap_or_default(),
        engine_labels: meta.labels.clone(),
        capacity: capacity(meta),
        active: takes_tasks(availability(intent, &member.id)) && !meta.leaving,
    }
}

fn takes_tasks(availability: Availability) -> bool {
    match availability {
        Availability::Active => true,
        Availability::Drain => mutation::on(Mutation::DrainIgnored),
        Availability::Pause => false,
    }
}

/// Returns what each task of a service reserves.
pub(crate) fn reserved(spec: &ServiceSpec) -> Amounts {
    Amounts { nano_cpus: spec.reserved.nano_cpus, memory_bytes: spec.reserved.memory_bytes }
}

/// Returns what a node has.
pub(crate) fn capacity(meta: &NodeMeta) -> Amounts {
    Amounts { nano_cpus: meta.nano_cpus, memory_bytes: meta.memory_bytes }
}

/// Returns whether a node takes tasks, as operators want it.
pub(super) fn availability(intent: &Intent, node: &NodeId) -> Availability {
    intent.nodes().get(node).map(|node| node.spec.availability).unwrap_or_default()
}

/// Returns the slots that run on paused nodes, as those report them; of several tasks in one slot one on the node with
/// the least id counts.
fn pinned(intent: &Intent, membership: &Membership, reports: &Reports) -> BTreeMap<(ServiceId, u32), NodeId> {
    let mut pinned = BTreeMap::new();
    let paused = intent.nodes().values().filter(|node| node.spec.availability == Availability::Pause);
    for (node, report) in paused.filter_map(|node| Some((node.node, reports.of(&node.node)?))) {
        if !membership.is_up(&node) {
            continue;
        }
        for task in report.tasks.values().filter(|task| task.state < TaskState::Stopping) {
            // A job's task is not moved anyway, and its lane goes on elsewhere.
            let holds = |service: &Service| service.spec.has_slot(task.slot) && !service.spec.mode.is_job();
            if intent.service(&task.service).is_some_and(holds) {
                pinned.entry((task.service, task.slot)).or_insert(node);
            }
        }
    }
    pinned
}
