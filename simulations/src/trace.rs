//! The trace: a running hash over everything that happened, which two runs of one seed must share.

use sha2::{Digest, Sha256};

/// Takes in events and gives one hash.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: Sha256,
    events: u64,
}

impl Trace {
    /// Takes in one event: when, at which node, what kind, and its bytes.
    pub(crate) fn record(&mut self, at_us: u64, node: usize, kind: &str, bytes: &[u8]) {
        self.events += 1;
        for part in [&at_us.to_be_bytes()[..], &(node as u64).to_be_bytes(), kind.as_bytes(), bytes] {
            self.hasher.update((part.len() as u64).to_be_bytes());
            self.hasher.update(part);
        }
    }

    /// Returns how many events were taken in.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Returns the hash so far, as 16 hexadecimal digits.
    pub(crate) fn hash(&self) -> String {
        self.hasher.clone().finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
