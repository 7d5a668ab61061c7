//! Levels: carries the present views to the transport, the overlay and the DNS server, whenever they change.
//!
//! Each of the three compares with what it has, so that a view may be skipped or come twice.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::{NodeId, Views};
use shoal_dns::DnsServer;
use shoal_overlay::Overlay;
use tokio::sync::watch;

use crate::images::chain;
use crate::transport::Transport;

/// The DNS port of the node's overlay addresses, where its tasks ask.
const DNS_PORT: u16 = 53;
/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How soon it is looked again at what went well: others may change interfaces and routes.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What the levels are carried to.
pub struct Edges {
    /// This node.
    pub own: NodeId,
    /// Wants to know where members listen.
    pub transport: Transport,
    /// Wants routes.
    pub overlay: Arc<Overlay>,
    /// Wants names.
    pub dns: Arc<DnsServer>,
}

/// Runs until the views' sender is gone.
pub async fn carry(edges: Edges, mut views: watch::Receiver<Arc<Views>>) {
    let mut listening: Vec<SocketAddr> = Vec::new();
    loop {
        let present = views.borrow_and_update().clone();
        edges.dns.set_names(&present.names);
        let addresses = present.members.iter().filter(|member| member.id != edges.own);
        edges.transport.set_addresses(addresses.map(|member| (member.id, vec![member.meta.gossip])).collect());
        let done = plug(&edges, &present, &mut listening).await;
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(if done { LOOK_AGAIN } else { RETRY }) => {}
        }
    }
}

/// Sets the overlay's routes, then answers DNS on the overlay addresses that the node has now. Tells whether all went well.
async fn plug(edges: &Edges, views: &Views, listening: &mut Vec<SocketAddr>) -> bool {
    if let Err(error) = edges.overlay.set_routes(views.routes.clone()).await {
        tracing::warn!(error = chain(&error), "cannot set the routes of the overlay; trying again");
        return false;
    }
    let wanted: Vec<SocketAddr> = views.routes.own.node().iter().map(|ip: IpAddr| (ip, DNS_PORT).into()).collect();
    for old in listening.iter().filter(|address| !wanted.contains(address)) {
        edges.dns.unlisten(*old);
    }
    listening.retain(|address| wanted.contains(address));
    for address in wanted {
        if listening.contains(&address) {
            continue;
        }
        match edges.dns.listen(address).await {
            Ok(bound) => listening.push(bound),
            Err(error) => tracing::warn!(error = chain(&error), "no DNS for the tasks of this node yet; trying again"),
        }
    }
    listening.len() == views.routes.own.node().iter().count()
}
