//! Routes: which node owns which block of the overlay, and at which UDP endpoint its tunnel listens.

use alloc::collections::BTreeMap;
use core::net::SocketAddr;

use crate::id::NodeId;
use crate::plan::addresses::Block;

/// The overlay as this node should see it, complete: what is not here has no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// This node's own block.
    pub own: Block,
    /// The other nodes that are thought to be up.
    pub peers: BTreeMap<NodeId, PeerRoute>,
}

/// How to reach one other node's block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerRoute {
    /// Where its tunnel listens.
    pub endpoint: SocketAddr,
    /// The addresses behind it; a packet from this peer with an inner source outside the block is dropped.
    pub block: Block,
}
