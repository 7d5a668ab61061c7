//! What a core is told when it is made.

use core::time::Duration;

use crate::membership::member::{Contacts, NodeMeta};

/// The knobs of one core. The defaults suit a LAN.
#[derive(Clone, Debug)]
pub struct Config {
    /// Fingerprint of the shoal's CA: which shoal this is.
    pub shoal: [u8; 32],
    /// Counts this node's starts and is durable before the core is made, so that no dot is ever used twice.
    pub epoch: u64,
    /// What this node says of itself.
    pub meta: NodeMeta,
    /// Members to begin with, as admission told them; those remembered in records are added.
    pub contacts: Contacts,
    /// SWIM's timers.
    pub membership: MembershipConfig,
    /// Time between anti-entropy rounds with one random member. Default 2 s.
    pub sync_interval: Duration,
    /// How long a node that knows of others waits for a first anti-entropy round before it acts on its own
    /// records. Default 4 s, which exceeds two sync intervals.
    pub settle_timeout: Duration,
}

/// SWIM's timers; the names are those of the paper (Das et al., 2002) and of Lifeguard (Dadgar et al., 2018).
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// Time between probes of one member. Shorter finds failures sooner. Default 1 s, memberlist's LAN profile.
    pub probe_interval: Duration,
    /// Time to wait for a direct answer before others are asked. Default 300 ms; must be well below
    /// `probe_interval`.
    pub probe_timeout: Duration,
    /// How many members are asked to probe for us. Default 3, memberlist's.
    pub indirect_probes: usize,
    /// How long a suspect has to refute. Default 3 s at few nodes; grows with log10 of the number of nodes.
    pub suspicion_timeout: Duration,
    /// How long a suspect has when the transport has evidence too: its connection was reset or a redial refused.
    /// Default 500 ms.
    pub suspicion_timeout_evidence: Duration,
    /// Time between attempts to reach a member that is down. Default 5 s, for ever.
    pub redial_interval: Duration,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(300),
            indirect_probes: 3,
            suspicion_timeout: Duration::from_secs(3),
            suspicion_timeout_evidence: Duration::from_millis(500),
            redial_interval: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Returns the default knobs for this node of this shoal.
    pub fn new(shoal: [u8; 32], epoch: u64, meta: NodeMeta, contacts: Contacts) -> Self {
        Self {
            shoal,
            epoch,
            meta,
            contacts,
            membership: MembershipConfig::default(),
            sync_interval: Duration::from_secs(2),
            settle_timeout: Duration::from_secs(4),
        }
    }
}
