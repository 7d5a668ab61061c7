//! Promise 2: after the last change and the last fault, all planes and all plans become equal.

use std::collections::BTreeSet;

use shoal_cluster::NodeId;

use crate::world::World;

/// Compares what all nodes that are up know. Each of them has computed its plan by itself.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let up: BTreeSet<NodeId> = world.up().map(|(index, _)| world.nodes[index].id).collect();
    if let Some(away) = world.nodes.iter().position(|node| node.core.is_none() && !node.unplugged) {
        return Err(format!("node {away} is still to come back"));
    }
    let mut first: Option<(usize, [u8; 32], [u8; 32])> = None;
    for (index, core) in world.up() {
        let mut seen = 0;
        for member in core.membership().members().values() {
            if member.state.is_up() != up.contains(&member.id) {
                return Err(format!("node {index} holds {} for {:?}", member.meta.name, member.state));
            }
            seen += usize::from(member.state.is_up());
        }
        if seen != up.len() {
            return Err(format!("node {index} knows {seen} members that are up, not all {}", up.len()));
        }
        let (intent, plan) = (core.intent().digest(), core.plan().digest);
        match first {
            None => first = Some((index, intent, plan)),
            Some((other, theirs, _)) if theirs != intent => {
                return Err(format!("nodes {other} and {index} hold different intent"));
            }
            Some((other, _, theirs)) if theirs != plan => {
                return Err(format!("nodes {other} and {index} plan differently"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
