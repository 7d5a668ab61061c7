//! Counters of the data path: written by the data thread, read by anybody.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use shoal_cluster::id::NodeId;

use crate::forward::DropReason;

/// What the overlay has carried since it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Inner packets sent to peers.
    pub packets_out: u64,
    /// Bytes of inner packets sent to peers.
    pub bytes_out: u64,
    /// Inner packets taken from peers and given to this host.
    pub packets_in: u64,
    /// Bytes of inner packets taken from peers and given to this host.
    pub bytes_in: u64,
    /// Packets not carried, in either direction, per reason.
    pub drops: [(DropReason, u64); DropReason::ALL.len()],
    /// The peers to which there is a connection now.
    pub connected: BTreeSet<NodeId>,
}

impl Stats {
    /// Returns how many packets were dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.iter().find(|(which, _)| *which == reason).map_or(0, |&(_, count)| count)
    }
}

/// The live counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    packets_out: AtomicU64,
    bytes_out: AtomicU64,
    packets_in: AtomicU64,
    bytes_in: AtomicU64,
    drops: [AtomicU64; DropReason::ALL.len()],
    connected: Mutex<BTreeSet<NodeId>>,
}

impl Counters {
    pub(crate) fn sent(&self, bytes: usize) {
        self.packets_out.fetch_add(1, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.packets_in.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self, reason: DropReason) {
        self.drops[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_connected(&self, peer: NodeId, connected: bool) {
        let mut peers = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if connected {
            peers.insert(peer);
        } else {
            peers.remove(&peer);
        }
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            packets_out: self.packets_out.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            packets_in: self.packets_in.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            drops: DropReason::ALL.map(|reason| (reason, self.drops[reason as usize].load(Ordering::Relaxed))),
            connected: self.connected.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let counters = Counters::default();
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            for _ in 0..=index {
                counters.dropped(reason);
            }
        }
        let stats = counters.read();
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(stats.dropped(reason), index as u64 + 1);
        }
    }
}
