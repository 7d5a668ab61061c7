//! Members: what every node knows of every other.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::intent::name::Name;

/// One member as this node sees it: a join semilattice over `(incarnation, state)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who it is.
    pub id: NodeId,
    /// Raised by the member alone, to refute what others say of it or to change its [`NodeMeta`].
    pub incarnation: u64,
    /// Whether it is up.
    pub state: MemberState,
    /// What it says of itself; belongs to `incarnation`.
    pub meta: NodeMeta,
}

impl Member {
    /// Tells whether this is later than `other` in the total order that all nodes join members by: incarnation, then
    /// state, then meta (which differs at equal incarnations only if a node lost its disk; it then raises its own).
    pub fn supersedes(&self, other: &Self) -> bool {
        let order = (self.incarnation, self.state).cmp(&(other.incarnation, other.state));
        order.then_with(|| self.meta.key().cmp(&other.meta.key())).is_gt()
    }
}

/// Whether a member is up; at equal incarnations the later state here wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It missed a probe and has until the suspicion timeout to refute. Still counted as up.
    Suspect,
    /// It did not refute in time. Probed for ever at a slow rate; comes back with a greater incarnation.
    Down,
    /// It said goodbye. Comes back likewise.
    Left,
}

impl MemberState {
    /// Tells whether tasks may be placed on such a member.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// What a node says of itself to all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMeta {
    /// Its name, unique by admission.
    pub name: Name,
    /// Where it listens for gossip and admission (TCP).
    pub gossip: SocketAddr,
    /// Where its tunnel listens (UDP).
    pub tunnel: SocketAddr,
    /// What it may do.
    pub role: Role,
    /// The newest wire version that it speaks.
    pub wire_version: u16,
    /// The newest plan that it can compute; the plan in force is the least over live members.
    pub plan_version: u16,
    /// The version of its binary, such as `0.1.0`.
    pub software: String,
    /// The host: `linux`.
    pub os: String,
    /// The host's architecture as OCI names it, such as `amd64`.
    pub architecture: String,
    /// Billionths of a CPU that the host has.
    pub nano_cpus: u64,
    /// Bytes of memory that the host has.
    pub memory_bytes: u64,
    /// What it was started with, for constraints and preferences on `engine.labels`.
    pub labels: BTreeMap<String, String>,
    /// Whether it is about to say goodbye: it takes no tasks, and its own move away, the new ones first.
    pub leaving: bool,
    /// Whether it counts for the majority of fenced services ([`super::majority`]). The node itself finds out when.
    pub counts: bool,
}

impl NodeMeta {
    /// Returns all of it as something with a total order; names count as they are written.
    pub(super) fn key(&self) -> impl Ord + '_ {
        (
            (self.name.as_str(), self.gossip, self.tunnel, self.role, self.wire_version, self.plan_version),
            (self.software.as_str(), self.os.as_str(), self.architecture.as_str(), self.nano_cpus, self.memory_bytes),
            (&self.labels, self.leaving, self.counts),
        )
    }

    /// Appends an encoding that is the same on every node and different for different metas.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend((self.labels.len() as u64).to_be_bytes());
        let labels = self.labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
        for text in [self.name.as_str(), &self.software, &self.os, &self.architecture].into_iter().chain(labels) {
            bytes.extend((text.len() as u64).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        for address in [self.gossip, self.tunnel] {
            let (kind, octets) = match address.ip() {
                IpAddr::V4(v4) => (4, v4.to_ipv6_mapped().octets()),
                IpAddr::V6(v6) => (6, v6.octets()),
            };
            bytes.push(kind);
            bytes.extend(octets);
            bytes.extend(address.port().to_be_bytes());
        }
        bytes.push(match self.role {
            Role::Manager => 0,
            Role::Worker => 1,
        });
        bytes.extend(self.wire_version.to_be_bytes());
        bytes.extend(self.plan_version.to_be_bytes());
        bytes.extend(self.nano_cpus.to_be_bytes());
        bytes.extend(self.memory_bytes.to_be_bytes());
        bytes.extend([u8::from(self.leaving), u8::from(self.counts)]);
    }
}

/// What a node's certificate lets it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// May write intent and admit nodes; all managers are equals.
    Manager,
    /// Runs tasks.
    Worker,
}

/// What a new node needs to find the others: some members and where they listen.
pub type Contacts = Vec<(NodeId, SocketAddr)>;
