//! What a core is told when it is made.

use core::time::Duration;

use crate::keeping::TOMBSTONE_HORIZON;
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
    /// Time between anti-entropy rounds with one random member, as many times as there are hundreds of members.
    /// Default 2 s.
    pub sync_interval: Duration,
    /// Time between two tellings of news in short, and half as long again for each thousand of members; what comes after
    /// a pause is told at once. Longer gathers more lines in a message, which costs as much as six of them by itself;
    /// shorter brings news sooner, by as much at each of the three or so tellings between its author and the last of a
    /// thousand. Default 100 ms.
    pub tell_interval: Duration,
    /// How long a node that knows of others waits for a first anti-entropy round before it acts on its own
    /// records. Default 4 s, which exceeds two sync intervals.
    pub settle_timeout: Duration,
    /// How long a tombstone is kept at least, and how long a member may be away without being told anew what is gone.
    /// Longer costs memory and disk for each removal. Default 3 days.
    pub tombstone_horizon: Duration,
    /// Whether this node computes the plan and acts on it. One that does not only keeps and passes on the planes.
    /// Default true.
    pub plans: bool,
}

/// SWIM's timers; the names are those of the paper (Das et al., 2002) and of Lifeguard (Dadgar et al., 2018). The
/// defaults were found by `shoal-simulations membership`: see `docs/protocol.md#membership`.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// Time between two pings of one node. Of three pings two go to the neighbours on the ring of ids, so that each
    /// member is asked by two others every three intervals, and one to a random member; where there are fewer than
    /// three others each is asked once every three intervals. Shorter finds failures sooner, for one message and its
    /// answer each. Default 300 ms; memberlist's LAN profile has 1 s.
    pub probe_interval: Duration,
    /// Time to wait for a direct answer before others are asked. Default 200 ms; memberlist's LAN profile has 500 ms,
    /// a LAN's round trip and a busy scheduler take less than 50 ms. Must be at most half of `probe_deadline`.
    pub probe_timeout: Duration,
    /// Time from a ping until the member is suspect, if nobody got an answer. Default 600 ms.
    pub probe_deadline: Duration,
    /// How many members are asked to probe for us. Default 3, memberlist's.
    pub indirect_probes: usize,
    /// How many of those who hear of a suspicion ask the suspect themselves. It hears of it sooner and oftener, and
    /// a suspicion that is right is confirmed at once. Default 24.
    pub second_opinions: usize,
    /// How long a suspect has to refute once the suspicion is confirmed; twice as long without confirmations, and
    /// more in large shoals. Default 3.5 s; memberlist's LAN profile has 4 s and 6 × that. It must exceed what a slow
    /// node needs to hear of it and to be heard.
    pub suspicion_timeout: Duration,
    /// How much longer a member has to refute that was late to answer or to refute within the last ten minutes: it is
    /// slow, not dead. To answer a probe it has the square of that. Default 4 times.
    pub slow_factor: u32,
    /// How long a suspect has when the transport has evidence too: its connection was reset or a redial refused.
    /// Default 500 ms.
    pub suspicion_timeout_evidence: Duration,
    /// Time between attempts to reach a member that is down. Default 5 s, for ever.
    pub redial_interval: Duration,
    /// Time between attempts to join while nobody has answered. Default 1 s.
    pub join_interval: Duration,
    /// Time between comparisons of the member list with a random member. Default 5 s, more in large shoals.
    pub list_interval: Duration,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_millis(300),
            probe_timeout: Duration::from_millis(200),
            probe_deadline: Duration::from_millis(600),
            indirect_probes: 3,
            second_opinions: 24,
            suspicion_timeout: Duration::from_millis(3_500),
            slow_factor: 4,
            suspicion_timeout_evidence: Duration::from_millis(500),
            redial_interval: Duration::from_secs(5),
            join_interval: Duration::from_secs(1),
            list_interval: Duration::from_secs(5),
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
            tell_interval: Duration::from_millis(100),
            settle_timeout: Duration::from_secs(4),
            tombstone_horizon: TOMBSTONE_HORIZON,
            plans: true,
        }
    }
}
