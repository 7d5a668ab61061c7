//! Hashes that every node computes alike: SHA-256 over length-prefixed parts, one domain per purpose.
//!
//! Never the standard library's hasher, whose result differs between processes and versions.

use sha2::{Digest, Sha256};

/// Returns SHA-256 of the domain and the parts, each prefixed by its length, so that no two lists collide.
pub fn digest(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in core::iter::once(domain.as_bytes()).chain(parts.iter().copied()) {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// A digest of a set that is kept up to date in constant time per change: the sum, in four lanes of 64 bits, of the digests
/// of what is in it. The order of changes does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum([u64; 4]);

impl Sum {
    /// Takes in one element by its digest.
    pub fn add(&mut self, element: &[u8; 32]) {
        self.change(element, u64::wrapping_add);
    }

    /// Takes out an element that is in it.
    pub fn remove(&mut self, element: &[u8; 32]) {
        self.change(element, u64::wrapping_sub);
    }

    /// Hashes the sum once more, so that a digest tells nothing of its summands.
    pub fn digest(&self, domain: &str) -> [u8; 32] {
        digest(domain, &self.0.map(u64::to_be_bytes).each_ref().map(<[u8; 8]>::as_slice))
    }

    fn change(&mut self, element: &[u8; 32], with: fn(u64, u64) -> u64) {
        for (lane, bytes) in self.0.iter_mut().zip(element.as_chunks::<8>().0) {
            *lane = with(*lane, u64::from_be_bytes(*bytes));
        }
    }
}

/// Returns a hash that tells lists of numbers of one length apart, and resists nobody: for where a collision that was
/// made on purpose harms only its maker.
pub fn quick(words: impl Iterator<Item = u64>) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in words {
        // Multiply and fold, as in wyhash; the constants are odd and without structure.
        let wide = u128::from(state ^ word) * 0xd6e8_feb8_6659_fd93;
        state = (wide as u64) ^ ((wide >> 64) as u64).wrapping_add(0xa076_1d64_78bd_642f);
    }
    state ^ (state >> 29)
}

/// Returns the first 128 bits of [`digest`].
pub fn id128(domain: &str, parts: &[&[u8]]) -> [u8; 16] {
    let mut bits = [0; 16];
    bits.copy_from_slice(&digest(domain, parts)[..16]);
    bits
}

/// Returns the first 64 bits of [`digest`], as a number.
pub fn rank64(domain: &str, parts: &[&[u8]]) -> u64 {
    let mut bits = [0; 8];
    bits.copy_from_slice(&digest(domain, parts)[..8]);
    u64::from_be_bytes(bits)
}
