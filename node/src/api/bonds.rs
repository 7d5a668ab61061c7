//! Bonds: in words, why the slots of a service wait for a volume, or for a majority of the members.

use shoal_cluster::intent::node::Availability;
use shoal_cluster::intent::service::Service;
use shoal_cluster::membership::member::MemberState;
use shoal_cluster::plan::volumes::Bond;
use shoal_cluster::{NodeId, Views};

use super::lookup::node_name;

/// Returns what a slot of a fenced service that runs nowhere waits for besides a node; nothing if the service is not fenced.
pub(super) fn fence_of(views: &Views, service: &Service) -> Option<&'static str> {
    if !service.spec.is_fenced() {
        return None;
    }
    if !views.majority {
        return Some("fenced: this side has no majority of the members");
    }
    let down = views.members.iter().any(|member| member.state == MemberState::Down);
    down.then_some("fenced: waits until a node that is down must have stopped it")
}

/// Returns what a slot of a service that runs nowhere waits for; none if that is no volume.
pub(super) fn waits_for(views: &Views, service: &Service, slot: u32) -> Option<String> {
    match views.bonds.get(&service.id)? {
        // This is the one that makes it.
        Bond::Makes(_) if slot == 1 => None,
        Bond::Makes(volume) => Some(format!("waits for volume {volume}, which the service's first task makes")),
        Bond::Waits { volume, maker } => {
            let maker = views.services.iter().find(|service| service.id == *maker);
            let maker = maker.map(|maker| maker.spec.name.to_string()).unwrap_or_default();
            Some(format!("waits for volume {volume}, which service {maker} makes"))
        }
        Bond::At { volume, node } => {
            let state = state_of(views, node).map(|state| format!(", which {state}"));
            Some(format!("waits for volume {volume} on node {}{}", node_name(views, node), state.unwrap_or_default()))
        }
        Bond::Torn { one, other } => Some(format!(
            "its volumes are on two nodes: {} on {}, {} on {}",
            one.0,
            node_name(views, &one.1),
            other.0,
            node_name(views, &other.1)
        )),
    }
}

/// Returns what keeps a node from running tasks, as the end of a sentence; none if nothing does.
pub(super) fn state_of(views: &Views, node: &NodeId) -> Option<&'static str> {
    let Some(member) = views.member(node) else { return Some("is not a member any more") };
    match member.state {
        MemberState::Down => return Some("is down"),
        MemberState::Left => return Some("has left"),
        MemberState::Alive | MemberState::Suspect => {}
    }
    match views.nodes.get(node).map(|node| node.spec.availability).unwrap_or_default() {
        Availability::Active => None,
        Availability::Pause => Some("is paused"),
        Availability::Drain => Some("is drained"),
    }
}
