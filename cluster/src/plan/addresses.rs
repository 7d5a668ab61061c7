//! Addresses: which block of the overlay each node owns, and what lies inside a block.
//!
//! IPv6 needs no agreement: the block is derived from the node's key. IPv4 blocks are claimed as intent
//! (see `docs/protocol.md#addresses`). A task takes a free host number of its own node's block.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::hash;
use crate::id::NodeId;
use crate::mutation::{self, Mutation};

/// The IPv4 pool of which every node owns one /24: 10.64.0.0/10, which holds [`BLOCK_COUNT`] blocks.
pub const POOL_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 64, 0, 0), 10);
/// How many IPv4 blocks there are.
pub const BLOCK_COUNT: u16 = 1 << 14;
/// Prefix length of a node's IPv4 block.
pub const BLOCK_PREFIX_V4: u8 = 24;
/// Prefix length of a node's IPv6 block.
pub const BLOCK_PREFIX_V6: u8 = 80;
/// The host number that the node itself has in its block: the DNS server and gateway of its tasks.
pub const NODE_HOST: u8 = 1;
/// The host numbers that tasks may have.
pub const TASK_HOSTS: core::ops::RangeInclusive<u8> = 2..=254;

/// The part of the overlay that one node owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Block {
    /// First address of the node's /24, once it has claimed one.
    pub v4: Option<Ipv4Addr>,
    /// First address of the node's /80.
    pub v6: Ipv6Addr,
}

/// The overlay addresses of one node or one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Addresses {
    /// The address in the node's IPv4 block; absent while the node has claimed none.
    pub v4: Option<Ipv4Addr>,
    /// The address in the node's IPv6 block.
    pub v6: Ipv6Addr,
}

/// The overlay of one shoal: what all its blocks begin with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overlay([u8; 3]);

impl Overlay {
    /// Returns the overlay of the shoal whose CA has this fingerprint.
    pub(super) fn new(shoal: &[u8; 32]) -> Self {
        let bits = hash::digest("overlay-shoal", &[shoal]);
        Self([bits[0], bits[1], bits[2]])
    }

    /// Returns the block of `node` with the IPv4 block numbered `v4`.
    pub(super) fn block(&self, node: &NodeId, v4: Option<u16>) -> Block {
        let shared = mutation::on(Mutation::SharedBlock);
        let node_bits = if shared { [0; 32] } else { hash::digest("overlay-node", &[&node.0]) };
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..4].copy_from_slice(&self.0);
        octets[4..10].copy_from_slice(&node_bits[..6]);
        Block { v4: v4.map(block_v4), v6: Ipv6Addr::from(octets) }
    }
}

impl Block {
    /// Returns the block of `node` in the shoal whose CA has this fingerprint, with the IPv4 block numbered `v4`.
    pub fn derive(shoal: &[u8; 32], node: &NodeId, v4: Option<u16>) -> Self {
        Overlay::new(shoal).block(node, v4)
    }

    /// Returns the same node's block with another IPv4 block.
    pub(super) fn renumbered(&self, v4: Option<u16>) -> Self {
        Self { v4: v4.map(block_v4), v6: self.v6 }
    }

    /// Returns the addresses with host number `host` in this block.
    pub fn host(&self, host: u8) -> Addresses {
        Addresses {
            v4: self.v4.map(|network| Ipv4Addr::from(u32::from(network) | u32::from(host))),
            v6: Ipv6Addr::from(u128::from(self.v6) | u128::from(host)),
        }
    }

    /// Returns the addresses of the node itself.
    pub fn node(&self) -> Addresses {
        self.host(NODE_HOST)
    }

    /// Tells whether `address` lies in this block: the check on the source of each packet received from its owner.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.is_some_and(|network| u32::from(network) >> 8 == u32::from(address) >> 8),
            IpAddr::V6(address) => u128::from(self.v6) >> 48 == u128::from(address) >> 48,
        }
    }
}

impl Addresses {
    /// Returns the addresses that are there, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain([IpAddr::V6(self.v6)])
    }
}

/// Returns the first address of the IPv4 block with this number.
fn block_v4(number: u16) -> Ipv4Addr {
    debug_assert!(number < BLOCK_COUNT);
    Ipv4Addr::from(u32::from(POOL_V4.0) | (u32::from(number) << 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_its_own_hosts_and_no_others() {
        let block = Block::derive(&[1; 32], &NodeId([2; 32]), Some(3));
        let other = Block::derive(&[1; 32], &NodeId([9; 32]), Some(4));
        assert_eq!(block.node().v4, Some(Ipv4Addr::new(10, 64, 3, 1)));
        for address in block.host(200).iter() {
            assert!(block.contains(address));
            assert!(!other.contains(address));
        }
    }
}
