//! A digest of all values in a set of versions that is kept up to date in constant time per change.

use crate::crdt::Version;
use crate::hash;
use crate::intent::key::Key;
use crate::wire;

/// The sum, in four lanes of 64 bits, of the hashes of all versions with a value: the order of changes does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum([u64; 4]);

impl Sum {
    pub(super) fn add(&mut self, key: &Key, version: Option<&Version>) {
        if let Some(version) = version {
            self.change(key, version, u64::wrapping_add);
        }
    }

    pub(super) fn remove(&mut self, key: &Key, version: &Version) {
        self.change(key, version, u64::wrapping_sub);
    }

    /// Hashes the sum once more, so that a digest tells nothing of its summands.
    pub(super) fn digest(&self) -> [u8; 32] {
        hash::digest("intent", &self.0.map(u64::to_be_bytes).each_ref().map(<[u8; 8]>::as_slice))
    }

    /// Tombstones do not count: one node forgets them sooner than another.
    fn change(&mut self, key: &Key, version: &Version, with: fn(u64, u64) -> u64) {
        if version.value.is_none() {
            return;
        }
        let hashed = hash::digest("intent-version", &[&wire::encode(key), &wire::encode(version)]);
        for (lane, bytes) in self.0.iter_mut().zip(hashed.as_chunks::<8>().0) {
            *lane = with(*lane, u64::from_be_bytes(*bytes));
        }
    }
}
