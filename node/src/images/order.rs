//! Order: whom a node asks for a piece of an image, decided alike by all from what all know.
//!
//! Input: the views. Output: for each blob, the nodes that want the same image in a line of their own by hash: each
//! takes from the one ahead of it, while that one still fetches, and only the first asks a holder (or, where no node has
//! the image, the registry). So a source sends each blob about once, and blobs travel along different lines at once.

use std::collections::BTreeSet;

use shoal_cluster::hash::rank64;
use shoal_cluster::{NodeId, ServiceId, Views};
use shoal_runtime::image::Digest;

/// Whom to ask for one blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Nodes that want the image too and are ahead in the line, the nearest first.
    pub(super) ahead: Vec<NodeId>,
    /// Nodes that have the whole image, each asker's in another order.
    pub(super) holders: Vec<NodeId>,
}

/// Returns the order in which node `own` asks for `blob` of `image`.
pub(super) fn order(views: &Views, own: NodeId, image: &Digest, blob: &Digest) -> Order {
    let holders = holders(views, image);
    let rank = |node: &NodeId| (rank64("blob line", &[blob.as_bytes(), &node.0]), *node);
    let mut ahead: Vec<NodeId> = wanting(views, image).difference(&holders).copied().collect();
    ahead.retain(|node| *node != own && rank(node) < rank(&own));
    ahead.sort_by_key(|node| std::cmp::Reverse(rank(node)));
    let mut holders: Vec<NodeId> = holders.into_iter().filter(|node| *node != own).collect();
    holders.sort_by_key(|node| (rank64("blob source", &[blob.as_bytes(), &own.0, &node.0]), *node));
    Order { ahead, holders }
}

/// Returns the nodes that are up and say that they have the image.
pub(super) fn holders(views: &Views, image: &Digest) -> BTreeSet<NodeId> {
    let text = image.to_string();
    // Nodes tell of `reference@digest`, or of the digest alone.
    let held = views.images.iter().filter(|(name, _)| name.ends_with(&text));
    held.flat_map(|(_, nodes)| nodes).copied().collect()
}

/// Returns the one of the nodes that have an image which keeps it when all of them want to be rid of it.
pub(super) fn keeper(views: &Views, image: &Digest) -> Option<NodeId> {
    holders(views, image).into_iter().min_by_key(|node| (rank64("image keeper", &[image.as_bytes(), &node.0]), *node))
}

/// Returns the nodes that are to run tasks of this image, as far as they are up: by the plan, which all know at once, but while
/// slots move to it one after the other, those whose turn has come.
fn wanting(views: &Views, image: &Digest) -> BTreeSet<NodeId> {
    let text = image.to_string();
    let is_open = |id: &ServiceId| views.rollouts.get(id).is_some_and(|rollout| rollout.verdict.is_open());
    let of_it =
        views.services.iter().filter(|service| service.spec.task.image.digest.as_deref() == Some(text.as_str()));
    let (moving, settled): (Vec<ServiceId>, Vec<ServiceId>) = of_it.map(|service| service.id).partition(is_open);
    let tasks = views.tasks.iter().filter(|task| task.desired && moving.contains(&task.report.service));
    let planned = settled.iter().flat_map(|id| views.assignments.slots(id)).map(|(_, node)| node);
    let mut nodes: BTreeSet<NodeId> = tasks.map(|task| task.node).chain(planned).collect();
    nodes.retain(|node| views.member(node).is_some_and(|member| member.state.is_up()));
    nodes
}
