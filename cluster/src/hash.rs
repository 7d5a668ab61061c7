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
