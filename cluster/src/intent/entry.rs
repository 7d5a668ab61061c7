//! Entries: what nodes send each other of intent.

use serde::{Deserialize, Serialize};

use super::key::{Key, Kind};
use super::service::Service;
use crate::crdt::Version;
use crate::wire;

/// One version of one register: what nodes send each other and make durable. Relays need not understand it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which register.
    pub key: Key,
    /// Which version of it.
    pub version: Version,
}

impl Entry {
    /// Returns the bytes that it takes, roughly and never too few in a message.
    pub fn weight(&self) -> usize {
        self.version.weight() + self.key.name.len()
    }

    /// Returns the service in it, if it is one that this code understands.
    pub fn service(&self) -> Option<Service> {
        let value = self.version.value.as_ref().filter(|_| self.key.kind == Kind::Service.number())?;
        wire::decode(value).ok()
    }
}
