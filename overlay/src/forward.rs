//! Forwarding: where a packet goes, decided from the route table alone.
//!
//! Input: [`Routes`] and a packet's [`Ends`]. Output: the peer it goes to, leave to hand it to this host, or a
//! [`DropReason`]. The source check lives here: a packet from a peer must have its source in that peer's block and its
//! destination in ours; a packet from this host must have its source in our block. Knows nothing of sockets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use shoal_cluster::id::NodeId;
use shoal_cluster::plan::addresses::{BLOCK_PREFIX_V4, BLOCK_PREFIX_V6, Block};
use shoal_cluster::plan::routes::Routes;

use crate::packet::{Ends, Malformed};

/// Why a packet was not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// It is not exactly one IP packet.
    Malformed,
    /// No live node owns its destination.
    NoRoute,
    /// Its destination is in our own block, where no task has it.
    NoTask,
    /// Its source is not in the block of the node it came from.
    ForeignSource,
    /// A peer sent it, and its destination is not in our block: nobody's packets are relayed.
    ForeignDestination,
    /// The owner of its destination is known, but there is no connection to it just now.
    NotConnected,
    /// It does not fit into a datagram; the sender was told the size that does.
    TooBig,
    /// The connection has as much waiting as it may.
    QueueFull,
    /// The TUN did not take it.
    InterfaceFull,
}

impl DropReason {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::NoRoute,
        Self::NoTask,
        Self::ForeignSource,
        Self::ForeignDestination,
        Self::NotConnected,
        Self::TooBig,
        Self::QueueFull,
        Self::InterfaceFull,
    ];
}

impl From<Malformed> for DropReason {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// The blocks of all nodes, arranged for looking up one address.
#[derive(Clone, Debug)]
pub struct Table {
    own: Block,
    blocks: BTreeMap<NodeId, Block>,
    owners_v4: BTreeMap<u32, NodeId>,
    owners_v6: BTreeMap<u128, NodeId>,
}

impl Table {
    /// Arranges `routes`. Where two peers claim one block, the lower id has it until the claim is settled.
    pub fn new(routes: &Routes) -> Self {
        let mut table =
            Self { own: routes.own, blocks: BTreeMap::new(), owners_v4: BTreeMap::new(), owners_v6: BTreeMap::new() };
        for (&node, route) in &routes.peers {
            table.blocks.insert(node, route.block);
            if let Some(network) = route.block.v4 {
                table.owners_v4.entry(u32::from(network) >> (32 - BLOCK_PREFIX_V4)).or_insert(node);
            }
            table.owners_v6.entry(u128::from(route.block.v6) >> (128 - BLOCK_PREFIX_V6)).or_insert(node);
        }
        table
    }

    /// Decides about a packet that this host wants carried: returns the peer it goes to.
    pub fn outbound(&self, ends: &Ends) -> Result<NodeId, DropReason> {
        // The kernel says hello to multicast groups on every interface, from whatever address it has there.
        if ends.destination.is_multicast() {
            return Err(DropReason::NoRoute);
        }
        if self.own.contains(ends.destination) {
            return Err(DropReason::NoTask);
        }
        if !self.own.contains(ends.source) {
            return Err(DropReason::ForeignSource);
        }
        self.owner(ends.destination).ok_or(DropReason::NoRoute)
    }

    /// Decides about a packet that `peer` sent: passes it on to this host, or says why not.
    pub fn inbound(&self, peer: &NodeId, ends: &Ends) -> Result<(), DropReason> {
        let block = self.blocks.get(peer).ok_or(DropReason::NoRoute)?;
        if !block.contains(ends.source) || self.own.contains(ends.source) {
            return Err(DropReason::ForeignSource);
        }
        if !self.own.contains(ends.destination) {
            return Err(DropReason::ForeignDestination);
        }
        Ok(())
    }

    fn owner(&self, address: IpAddr) -> Option<NodeId> {
        match address {
            IpAddr::V4(address) => self.owners_v4.get(&(u32::from(address) >> (32 - BLOCK_PREFIX_V4))).copied(),
            IpAddr::V6(address) => self.owners_v6.get(&(u128::from(address) >> (128 - BLOCK_PREFIX_V6))).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;
    use shoal_cluster::plan::routes::PeerRoute;

    use super::*;
    use crate::packet;

    const SHOAL: [u8; 32] = [1; 32];

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn block(number: u8) -> Block {
        Block::derive(&SHOAL, &node(number), Some(u16::from(number)))
    }

    fn routes(peers: impl IntoIterator<Item = u8>) -> Routes {
        let endpoint = "192.0.2.1:7946".parse().unwrap();
        Routes {
            own: block(0),
            peers: peers.into_iter().map(|n| (node(n), PeerRoute { endpoint, block: block(n) })).collect(),
        }
    }

    fn ends(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Ends {
        Ends { source: source.into(), destination: destination.into() }
    }

    #[test]
    fn packets_between_blocks_go_to_the_owner_and_are_taken_from_it_only() {
        let table = Table::new(&routes([1, 2]));
        let (ours, theirs) = (block(0).host(7), block(1).host(9));
        let v4 = |a: Option<Ipv4Addr>| a.unwrap();
        for (own, far) in [(IpAddr::from(v4(ours.v4)), IpAddr::from(v4(theirs.v4))), (ours.v6.into(), theirs.v6.into())]
        {
            assert_eq!(table.outbound(&ends(own, far)), Ok(node(1)));
            assert_eq!(table.inbound(&node(1), &ends(far, own)), Ok(()));
            assert_eq!(table.inbound(&node(2), &ends(far, own)), Err(DropReason::ForeignSource));
            assert_eq!(table.inbound(&node(1), &ends(far, far)), Err(DropReason::ForeignDestination));
            assert_eq!(table.inbound(&node(1), &ends(own, own)), Err(DropReason::ForeignSource));
            assert_eq!(table.inbound(&node(3), &ends(far, own)), Err(DropReason::NoRoute));
            assert_eq!(table.outbound(&ends(far, far)), Err(DropReason::ForeignSource));
            assert_eq!(table.outbound(&ends(own, own)), Err(DropReason::NoTask));
        }
    }

    #[test]
    fn a_destination_that_no_node_owns_has_no_route() {
        let table = Table::new(&routes([1]));
        let own = block(0).host(7);
        assert_eq!(table.outbound(&ends(own.v4.unwrap(), [10, 64, 9, 9])), Err(DropReason::NoRoute));
        assert_eq!(table.outbound(&ends(own.v6, block(9).host(1).v6)), Err(DropReason::NoRoute));
        let hello = ends(Ipv6Addr::UNSPECIFIED, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16));
        assert_eq!(table.outbound(&hello), Err(DropReason::NoRoute));
    }

    #[test]
    fn a_peer_that_claims_our_block_gets_nothing_through_with_our_addresses() {
        let mut routes = routes([1]);
        let stolen = Block { v4: block(0).v4, ..block(1) };
        if let Some(route) = routes.peers.get_mut(&node(1)) {
            route.block = stolen;
        }
        let table = Table::new(&routes);
        let (ours, other) = (block(0).host(7).v4.unwrap(), block(0).host(8).v4.unwrap());
        assert_eq!(table.inbound(&node(1), &ends(other, ours)), Err(DropReason::ForeignSource));
        assert_eq!(table.outbound(&ends(ours, other)), Err(DropReason::NoTask));
    }

    fn any_address() -> impl Strategy<Value = IpAddr> {
        let near = (0u8..6, any::<u8>(), any::<bool>()).prop_map(|(n, host, v4)| {
            let address = block(n).host(host);
            if v4 { address.v4.unwrap().into() } else { address.v6.into() }
        });
        prop_oneof![
            near,
            any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
            any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into()),
        ]
    }

    proptest! {
        /// The rule of docs/protocol: stated a second time over the blocks, without the table's maps.
        #[test]
        fn only_a_source_in_the_peers_block_and_a_destination_in_ours_pass(
            peer in 0u8..8, source in any_address(), destination in any_address(),
        ) {
            let table = Table::new(&routes(1..6));
            let allowed = (1..6).contains(&peer)
                && block(peer).contains(source)
                && block(0).contains(destination);
            prop_assert_eq!(table.inbound(&node(peer), &ends(source, destination)).is_ok(), allowed);
        }

        #[test]
        fn what_goes_out_is_from_us_and_to_the_owner(source in any_address(), destination in any_address()) {
            let table = Table::new(&routes(1..6));
            let owner = (1..6).find(|&n| block(n).contains(destination)).map(node);
            let expected = if block(0).contains(source) { owner } else { None };
            prop_assert_eq!(table.outbound(&ends(source, destination)).ok(), expected);
        }

        #[test]
        fn garbage_from_a_peer_never_panics_and_never_passes_unchecked(
            bytes in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let table = Table::new(&routes(1..6));
            if let Ok(ends) = packet::parse(&bytes)
                && table.inbound(&node(1), &ends).is_ok()
            {
                prop_assert!(block(1).contains(ends.source));
            }
        }
    }
}
