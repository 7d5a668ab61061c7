//! Identities: nodes, services and tasks, and how each is shown.
//!
//! A [`NodeId`] is the node's ed25519 public key, so it is also its libp2p peer id and its TLS leaf key.
//! All ids are shown as Docker shows its own: 25 characters of base 36. See `docs/protocol.md#ids`.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::hash;

/// Length in characters of every id as it is shown.
pub const ID_TEXT_LENGTH: usize = 25;

/// Names a node: its ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

/// Names a service for its whole life, whatever it is called.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceId(pub [u8; 16]);

/// Names one task: one start of one container. A restart is a new task with a new id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(pub [u8; 16]);

impl NodeId {
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

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn ids_are_25_characters_of_base_36() {
        assert_eq!(TaskId([0; 16]).to_string(), "0".repeat(25));
        assert_eq!(TaskId([0xff; 16]).to_string(), "f5lxx1zz5pnorynqglhzmsp33");
        assert_eq!(NodeId([7; 32]).to_string().len(), ID_TEXT_LENGTH);
    }
}
