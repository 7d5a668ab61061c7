//! Conflicts: objects with concurrent writes, which operators should see until someone writes again.
//!
//! Input: the registers that hold more than one version. Output: for each, all versions with author and stamp, the one
//! that counts first. Pure, and alike on all nodes with the same registers.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::Intent;
use super::key::{Key, Kind};
use super::node::NodeIntent;
use super::object::{Data, Network};
use super::service::Service;
use crate::clock::Stamp;
use crate::crdt::{Dot, Register, Version};
use crate::id::NodeId;
use crate::wire;

/// One object that was written concurrently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Which object.
    pub key: Key,
    /// All versions, the one that counts first.
    pub versions: Vec<Rival>,
}

/// One of several concurrent writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Which write it is.
    pub dot: Dot,
    /// The node on which it was written.
    pub author: NodeId,
    /// When, by that node's hybrid clock.
    pub stamp: Stamp,
    /// What was written, encoded; absent if the object was removed.
    pub value: Option<Vec<u8>>,
}

/// What a write says, as far as this code understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// A service.
    Service(Box<Service>),
    /// What is wanted of a node.
    Node(NodeIntent),
    /// Where a volume lives.
    Volume(NodeId),
    /// A network.
    Network(Network),
    /// A secret or config.
    Data(Data),
    /// The object was removed.
    Nothing,
    /// A kind that this code does not understand, or has no words for.
    Unknown,
}

impl Rival {
    /// Reads what was written to `key`.
    pub fn written(&self, key: &Key) -> Written {
        let Some(value) = &self.value else { return Written::Nothing };
        let read = match key.kind() {
            Some(Kind::Service) => wire::decode(value).map(|service| Written::Service(Box::new(service))).ok(),
            Some(Kind::Node) => wire::decode(value).map(Written::Node).ok(),
            Some(Kind::Volume) => wire::decode(value).map(Written::Volume).ok(),
            Some(Kind::Network) => wire::decode(value).map(Written::Network).ok(),
            Some(Kind::Secret | Kind::Config) => wire::decode(value).map(Written::Data).ok(),
            Some(Kind::Block | Kind::Verdict | Kind::Part | Kind::Completions) | None => None,
        };
        read.unwrap_or(Written::Unknown)
    }
}

/// The keys of the registers in conflict.
#[derive(Clone, Debug, Default)]
pub(super) struct Conflicted(BTreeSet<Key>);

impl Conflicted {
    /// Follows a change of one register.
    pub(super) fn refresh(&mut self, key: &Key, register: &Register) {
        if is_conflict(key, register) {
            self.0.insert(key.clone());
        } else {
            self.0.remove(key);
        }
    }
}

/// Two versions with one value are no conflict. A block that two nodes claim settles by itself: the loser moves. Of
/// verdicts the greatest counts.
fn is_conflict(key: &Key, register: &Register) -> bool {
    let versions = register.versions();
    let differ = versions.windows(2).any(|pair| pair[0].value != pair[1].value);
    differ && !matches!(key.kind(), Some(Kind::Block | Kind::Verdict))
}

impl Intent {
    /// Returns every object with concurrent writes that differ, in order of key. Those of kinds that this code does
    /// not understand are among them.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let conflict =
            |key: &Key| Conflict { key: key.clone(), versions: self.versions(key).iter().map(Rival::from).collect() };
        self.conflicted.0.iter().map(conflict).collect()
    }
}

impl From<&Version> for Rival {
    fn from(version: &Version) -> Self {
        Self { dot: version.dot, author: version.dot.actor.node, stamp: version.stamp, value: version.value.clone() }
    }
}
