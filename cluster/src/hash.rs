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
