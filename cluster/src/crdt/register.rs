//! A multi-value register: concurrent writes are kept side by side, and every node picks the same winner.
//!
//! As `MVReg` of the `crdts` crate, with the dot of each write beside its context, so that versions travel alone
//! and in any order. The join drops what another version's author had seen; it is idempotent, commutative and
//! associative while at most [`VERSIONS_MAX`] versions are concurrent.

use alloc::vec::Vec;
use core::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{Context, Dot};
use crate::clock::Stamp;
use crate::limits::{AUTHOR_BYTES_MAX, CONTEXT_ACTORS_MAX, SIGNATURE_BYTES_MAX, VALUE_BYTES_MAX, VERSIONS_MAX};

/// One write of one register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Which write it is.
    pub dot: Dot,
    /// The writes of this register that its author had seen, and so overwrote.
    pub context: Context,
    /// When it was written, by its author's hybrid clock.
    pub stamp: Stamp,
    /// What was written, encoded; absent for a tombstone.
    #[serde(with = "crate::bytes::optional")]
    pub value: Option<Vec<u8>>,
    /// Room for the id of its author's certificate; empty so far.
    #[serde(with = "crate::bytes")]
    pub author: Vec<u8>,
    /// Room for its author's signature over all of the above; empty so far.
    #[serde(with = "crate::bytes")]
    pub signature: Vec<u8>,
}

/// A version breaks a bound or contradicts itself. It must not be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Its counter is zero.
    #[error("a version's counter is zero")]
    Counter,
    /// Its author says that it had seen it before writing it.
    #[error("a version overwrites itself")]
    Itself,
    /// Its value, author or signature is too long.
    #[error("a version is too long")]
    Length,
    /// Its context names too many actors.
    #[error("a version's context is too long")]
    Context,
}

impl Version {
    /// Checks what decoding does not.
    pub fn check(&self) -> Result<(), VersionError> {
        if self.dot.counter == 0 {
            return Err(VersionError::Counter);
        }
        if self.context.covers(&self.dot) {
            return Err(VersionError::Itself);
        }
        if self.context.len() > CONTEXT_ACTORS_MAX {
            return Err(VersionError::Context);
        }
        let value = self.value.as_ref().map_or(0, Vec::len);
        let long = value > VALUE_BYTES_MAX
            || self.author.len() > AUTHOR_BYTES_MAX
            || self.signature.len() > SIGNATURE_BYTES_MAX;
        if long { Err(VersionError::Length) } else { Ok(()) }
    }

    /// Returns the bytes that it takes in memory and in a message, roughly and never too few in a message.
    pub fn weight(&self) -> usize {
        let context = self.context.len() * 64;
        128 + context + self.value.as_ref().map_or(0, Vec::len) + self.author.len() + self.signature.len()
    }

    /// Tells whether its author had seen `other`. A write is later than all that its author had seen; one that says
    /// otherwise is not believed, or two could overwrite each other.
    fn overwrites(&self, other: &Self) -> bool {
        self.context.covers(&other.dot) && self.order(other) == Ordering::Less
    }

    /// Later stamps first; equal ones by dot, so that the order is total.
    fn order(&self, other: &Self) -> Ordering {
        let rank = |version: &Self| (version.stamp, version.dot.actor, version.dot.counter);
        rank(other).cmp(&rank(self))
    }
}

/// What joining a version did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Whether the version is in the register now and was not before.
    pub added: bool,
    /// The versions that left, by overwriting or because too many are concurrent.
    pub removed: Vec<Version>,
}

/// The surviving versions of one key, latest stamp first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    versions: Vec<Version>,
}

impl Register {
    /// Adds one version, drops what it overwrites, or ignores it if it is overwritten itself.
    pub fn join(&mut self, version: Version) -> Joined {
        if let Some(twin) = self.versions.iter().position(|held| held.dot == version.dot) {
            return self.join_twin(twin, version);
        }
        if self.versions.iter().any(|held| held.overwrites(&version)) {
            return Joined::default();
        }
        let (mut removed, mut kept): (Vec<_>, Vec<_>) =
            self.versions.drain(..).partition(|held| version.overwrites(held));
        let place = kept.partition_point(|held| held.order(&version) == Ordering::Less);
        let dot = version.dot;
        kept.insert(place, version);
        removed.extend(kept.drain(kept.len().min(VERSIONS_MAX)..));
        let added = kept.iter().any(|held| held.dot == dot);
        removed.retain(|left| left.dot != dot);
        self.versions = kept;
        Joined { added, removed }
    }

    /// Two versions with one dot: only a broken or hostile author makes them; the greater content wins everywhere.
    fn join_twin(&mut self, twin: usize, version: Version) -> Joined {
        let content = |version: &Version| {
            let context: Vec<_> = version.context.iter().collect();
            (version.stamp, version.value.clone(), context, version.author.clone(), version.signature.clone())
        };
        if content(&version) <= content(&self.versions[twin]) {
            return Joined::default();
        }
        let left = self.versions.remove(twin);
        let mut joined = self.join(version);
        joined.removed.push(left);
        joined
    }

    /// Drops one version that was removed and forgotten elsewhere. Does nothing if it is not here.
    pub fn forget(&mut self, dot: &Dot) {
        self.versions.retain(|held| held.dot != *dot);
    }

    /// Returns the surviving versions, latest stamp first.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// Returns the version that counts where only one may: the latest stamp, then the greatest dot.
    pub fn winner(&self) -> Option<&Version> {
        self.versions.first()
    }

    /// Returns the context for a write that overwrites all that is here.
    pub fn context(&self) -> Context {
        let mut present = Context::default();
        for version in &self.versions {
            present.add(version.dot);
        }
        let mut context = present.clone();
        for version in &self.versions {
            context.merge(&version.context);
        }
        context.cut(CONTEXT_ACTORS_MAX, &present);
        context
    }
}
