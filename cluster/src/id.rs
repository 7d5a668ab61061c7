//! Identities: nodes, services and tasks, and how each is shown.
//!
//! A [`NodeId`] is the node's ed25519 public key, so it is also its libp2p peer id and its TLS leaf key.
//! All ids are shown as Docker shows its own: 25 characters of base 36. See `docs/protocol.md#ids`.

use alloc::string::String;
use core::cmp::Ordering;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::hash;

/// Length in characters of every id as it is shown.
pub const ID_TEXT_LENGTH: usize = 25;

/// Names a node: its ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

/// Names a service for its whole life, whatever it is called.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceId(pub [u8; 16]);

/// Names one task: one start of one container. A restart is a new task with a new id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskId(pub [u8; 16]);

/// Names a network, secret or config for its whole life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectId(pub [u8; 16]);

impl NodeId {
    /// Returns its bits as numbers.
    pub(crate) fn words(&self) -> [u64; 4] {
        let (words, _) = self.0.as_chunks::<8>();
        [words[0], words[1], words[2], words[3]].map(u64::from_be_bytes)
    }

    /// Returns the first 128 bits of a hash of the key, which is what people see and type.
    fn shown(&self) -> [u8; 16] {
        hash::id128("node", &[&self.0])
    }
}

impl ServiceId {
    /// Derives the id of the service that `author` created with its `counter`-th write in `epoch`.
    pub fn derive(author: &NodeId, epoch: u64, counter: u64) -> Self {
        Self(hash::id128("service", &[&author.0, &epoch.to_be_bytes(), &counter.to_be_bytes()]))
    }
}

impl TaskId {
    /// Derives the id of the `counter`-th task that `node` started in `epoch`.
    pub fn derive(node: &NodeId, epoch: u64, counter: u64) -> Self {
        Self(hash::id128("task", &[&node.0, &epoch.to_be_bytes(), &counter.to_be_bytes()]))
    }
}

impl ObjectId {
    /// Reads an id as it is shown.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |character: char| character.to_digit(36).filter(|_| !character.is_ascii_uppercase());
        let add = |value: u128, character| value.checked_mul(36)?.checked_add(u128::from(digit(character)?));
        let value = (text.len() == ID_TEXT_LENGTH).then(|| text.chars().try_fold(0, add)).flatten()?;
        Some(Self(value.to_be_bytes()))
    }
}

/// Names a rollout: a hash of the write that began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RolloutId(pub u64);

/// Names one direction of a rollout: failures on the way there are not failures on the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Leg(pub u64);

impl RolloutId {
    /// Derives the id of the rollout that `author` began with its `counter`-th write in `epoch`.
    pub fn derive(author: &NodeId, epoch: u64, counter: u64) -> Self {
        Self(hash::rank64("rollout", &[&author.0, &epoch.to_be_bytes(), &counter.to_be_bytes()]))
    }

    /// Returns its way to the revision that was asked for.
    pub fn there(self) -> Leg {
        Leg(self.0)
    }

    /// Returns its way back, once it is rolled back.
    pub fn back(self) -> Leg {
        Leg(hash::rank64("rollout-back", &[&self.0.to_be_bytes()]))
    }
}

/// Ids are in the order of their bytes. Everything is kept by id, so comparing them is much of what a node does: two
/// numbers are compared faster than bytes are.
macro_rules! ordered {
    ($type:ty, $halves:expr) => {
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                let halves: fn(&$type) -> (u128, u128) = $halves;
                halves(self).cmp(&halves(other))
            }
        }

        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
    };
}

ordered!(NodeId, |id| {
    let (halves, _) = id.0.as_chunks::<16>();
    (u128::from_be_bytes(halves[0]), u128::from_be_bytes(halves[1]))
});
ordered!(ServiceId, |id| (u128::from_be_bytes(id.0), 0));
ordered!(TaskId, |id| (u128::from_be_bytes(id.0), 0));
ordered!(ObjectId, |id| (u128::from_be_bytes(id.0), 0));

/// Returns the 128 bits as 25 characters of base 36, most significant first, padded with zeros.
fn base36(bits: [u8; 16]) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut value = u128::from_be_bytes(bits);
    let mut text = [b'0'; ID_TEXT_LENGTH];
    for place in text.iter_mut().rev() {
        *place = DIGITS[(value % 36) as usize];
        value /= 36;
    }
    text.iter().map(|&byte| char::from(byte)).collect()
}

macro_rules! shown {
    ($type:ty, $bits:expr) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let bits: fn(&$type) -> [u8; 16] = $bits;
                f.write_str(&base36(bits(self)))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

shown!(NodeId, NodeId::shown);
shown!(ServiceId, |id| id.0);
shown!(TaskId, |id| id.0);
shown!(ObjectId, |id| id.0);

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_in_the_order_of_their_bytes(one in any::<[u8; 32]>(), other in any::<[u8; 32]>(), same in 0_usize..33) {
            let mut other = other;
            other[..same].copy_from_slice(&one[..same]);
            prop_assert_eq!(NodeId(one).cmp(&NodeId(other)), one.cmp(&other));
            let half = |bytes: [u8; 32]| bytes.as_chunks::<16>().0[0];
            prop_assert_eq!(TaskId(half(one)).cmp(&TaskId(half(other))), half(one).cmp(&half(other)));
            prop_assert_eq!(ObjectId::parse(&ObjectId(half(one)).to_string()), Some(ObjectId(half(one))));
        }
    }

    #[test]
    fn ids_are_25_characters_of_base_36() {
        assert_eq!(TaskId([0; 16]).to_string(), "0".repeat(25));
        assert_eq!(TaskId([0xff; 16]).to_string(), "f5lxx1zz5pnorynqglhzmsp33");
        assert_eq!(NodeId([7; 32]).to_string().len(), ID_TEXT_LENGTH);
        for bad in ["", "0", "f5lxx1zz5pnorynqglhzmsp34", &"Z".repeat(25), &"ä".repeat(25), &"-".repeat(25)] {
            assert_eq!(ObjectId::parse(bad), None, "{bad}");
        }
    }
}
