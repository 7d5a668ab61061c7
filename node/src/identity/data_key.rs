//! The data key: seals secrets and configs, so that only nodes of this shoal can read them.
//!
//! AES-256-GCM with a random nonce of 96 bits, which is put before the sealed bytes. The id of what is sealed is the
//! associated data: sealed bytes cannot be passed off as another's. See `docs/protocol.md#sealing`.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use shoal_cluster::ObjectId;

use super::random;

/// Bytes of the key.
pub const DATA_KEY_BYTES: usize = 32;

/// The key that every node of the shoal holds.
#[derive(Clone)]
pub struct DataKey([u8; DATA_KEY_BYTES]);

impl DataKey {
    /// Makes one for a new shoal.
    pub fn generate() -> Self {
        Self(random())
    }

    /// Returns the key of these bytes.
    pub fn from_bytes(bytes: [u8; DATA_KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns its bytes, for the identity on disk and for nodes that are admitted.
    pub(super) fn bytes(&self) -> &[u8; DATA_KEY_BYTES] {
        &self.0
    }

    /// Seals the bytes of a secret or config.
    pub fn seal(&self, id: &ObjectId, bytes: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random();
        let mut body = bytes.to_vec();
        self.key()
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(id.0), &mut body)
            .expect("half a megabyte is far below the bound of the cipher");
        [&nonce[..], &body].concat()
    }

    /// Returns what was sealed for this id, or nothing if these are other bytes, another id or another key.
    pub fn open(&self, id: &ObjectId, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.key().open_in_place(nonce, Aad::from(id.0), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }

    fn key(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.0).expect("the key has as many bytes as the cipher takes"))
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use shoal_cluster::limits::{DATA_BYTES_MAX, SEAL_BYTES_MAX};

    use super::*;

    #[test]
    fn what_is_sealed_is_opened_with_the_same_key_for_the_same_id_only() {
        let (key, id) = (DataKey::generate(), ObjectId([7; 16]));
        for bytes in [&b""[..], b"pass", &[3; DATA_BYTES_MAX]] {
            let sealed = key.seal(&id, bytes);
            assert!(sealed.len() <= bytes.len() + SEAL_BYTES_MAX);
            assert_eq!(key.open(&id, &sealed).as_deref(), Some(bytes));
            assert_ne!(key.seal(&id, bytes), sealed, "a nonce is never used twice");
            assert_eq!(key.open(&ObjectId([8; 16]), &sealed), None);
            assert_eq!(DataKey::generate().open(&id, &sealed), None);
            for at in [0, sealed.len() - 1] {
                let mut harmed = sealed.clone();
                harmed[at] ^= 1;
                assert_eq!(key.open(&id, &harmed), None);
            }
        }
        assert_eq!(key.open(&id, &[0; 5]), None);
        assert!(!key.seal(&id, b"password").windows(8).any(|part| part == b"password"));
        assert_eq!(format!("{key:?}"), "DataKey(…)");
    }
}
