//! A digest of all values in a set of versions that is kept up to date in constant time per change.

use crate::crdt::Version;
use crate::hash;
use crate::intent::key::Key;
use crate::wire;

/// The sum of the hashes of all versions with a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum(hash::Sum);

impl Sum {
    pub(super) fn add(&mut self, key: &Key, version: Option<&Version>) {
        if let Some(hashed) = version.and_then(|version| hashed(key, version)) {
            self.0.add(&hashed);
        }
    }

    pub(super) fn remove(&mut self, key: &Key, version: &Version) {
        if let Some(hashed) = hashed(key, version) {
            self.0.remove(&hashed);
        }
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        self.0.digest("intent")
    }
}

/// Tombstones do not count: one node forgets them sooner than another.
fn hashed(key: &Key, version: &Version) -> Option<[u8; 32]> {
    version.value.as_ref()?;
    Some(hash::digest("intent-version", &[&wire::encode(key), &wire::encode(version)]))
}
