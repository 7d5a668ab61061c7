//! Promise 2: after the last change and the last fault, all planes and all plans become equal.

use crate::world::World;

/// Compares what all nodes that are up know.
pub(super) fn check(world: &mut World) -> Result<(), String> {
    let mut first = None;
    let up: Vec<_> = world.nodes.iter().filter(|node| node.core.is_some()).map(|node| node.id).collect();
    for (index, node) in world.nodes.iter_mut().enumerate() {
        let Some(core) = node.core.as_mut() else { continue };
        let views = core.views();
        for member in &views.members {
            if member.state.is_up() != up.contains(&member.id) {
                return Err(format!("node {index} holds {} for {:?}", member.meta.name, member.state));
            }
        }
        if views.members.iter().filter(|member| member.state.is_up()).count() != up.len() {
            return Err(format!("node {index} knows of {} members, not of all {}", views.members.len(), up.len()));
        }
        let mine = (views.agreement.intent, views.agreement.plan, views.names.clone(), views.blocks.clone());
        match &first {
            None => first = Some((index, mine)),
            Some((other, theirs)) if theirs.0 != mine.0 => {
                return Err(format!("nodes {other} and {index} hold different intent"));
            }
            Some((other, theirs)) if *theirs != mine => {
                return Err(format!("nodes {other} and {index} plan differently"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
