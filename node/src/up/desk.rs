//! The front desk: what admission asks about the members.

use std::net::SocketAddr;
use std::sync::Arc;

use shoal_cluster::intent::name::Name;
use shoal_cluster::{NodeId, Views};
use tokio::sync::watch;

use crate::identity::admission::Desk;

/// What admission asks about the members.
pub(super) struct FrontDesk {
    /// The node itself, which comes first among the members.
    pub(super) own: NodeId,
    /// The present views.
    pub(super) views: watch::Receiver<Arc<Views>>,
}

impl Desk for FrontDesk {
    fn name_taken(&self, name: &str, node: &NodeId) -> bool {
        let Ok(name) = Name::new(name) else { return false };
        self.views.borrow().listed().any(|member| member.meta.name == name && member.id != *node)
    }

    fn members(&self) -> Vec<(NodeId, Vec<SocketAddr>)> {
        let views = self.views.borrow().clone();
        let mut members: Vec<_> = views.members.iter().map(|member| (member.id, vec![member.meta.gossip])).collect();
        members.sort_by_key(|(id, _)| (*id != self.own, *id));
        members
    }
}
