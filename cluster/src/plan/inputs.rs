//! Inputs of placement: what the planes say of services and nodes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::placement::{Amounts, Inputs, NodeInput, ServiceInput};
use crate::intent::Intent;
use crate::membership::Membership;
use crate::membership::member::{Member, Role};

/// Returns what placement is computed from.
pub(super) fn inputs(intent: &Intent, membership: &Membership) -> Inputs {
    let services = intent.services().map(|service| ServiceInput::plain(service.id, service.spec.replicas));
    let nodes: Vec<NodeInput> = membership.members().values().filter(|member| member.state.is_up()).map(node).collect();
    Inputs { services: services.collect(), nodes, pinned: BTreeMap::new() }
}

fn node(member: &Member) -> NodeInput {
    let meta = &member.meta;
    NodeInput {
        id: member.id,
        hostname: meta.name.as_str().into(),
        manager: meta.role == Role::Manager,
        os: meta.os.clone(),
        architecture: meta.architecture.clone(),
        labels: BTreeMap::new(),
        engine_labels: BTreeMap::new(),
        capacity: Amounts { nano_cpus: meta.nano_cpus, memory_bytes: meta.memory_bytes },
        active: true,
    }
}
