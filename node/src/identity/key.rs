//! The node key: one ed25519 key that is the [`NodeId`], the libp2p peer id and the key of the TLS leaf.
//!
//! Input: a PEM file, or the system's randomness. Output: the key in the form that each library wants.

use libp2p::PeerId;
use libp2p::multihash::Multihash;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::pki_types::PrivatePkcs8KeyDer;
use shoal_cluster::id::NodeId;

use super::IdentityError;

/// What comes before the 32 secret bytes in PKCS#8 version 1 of an ed25519 key: RFC 8410 §7.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// What comes before the 32 bytes of an ed25519 key in libp2p's protobuf encoding of a public key.
const PEER_ID_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x20];
/// Code of the multihash that is no hash: the key itself.
const IDENTITY_MULTIHASH: u64 = 0;

/// The secret key of a node.
#[derive(Clone)]
pub struct NodeKey {
    secret: [u8; 32],
    id: NodeId,
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl NodeKey {
    /// Makes a new key from the system's randomness.
    pub fn generate() -> Self {
        Self::from_secret(super::random())
    }

    /// Returns the id of the node that holds this key.
    pub fn node_id(&self) -> NodeId {
        self.id
    }

    /// Returns a signing request for this key, in DER. It carries nothing but the key: the CA decides the rest.
    pub fn signing_request(&self) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = super::name_of(&self.id.to_string());
        Ok(params.serialize_request(&self.pair()?)?.der().to_vec())
    }

    /// Returns the key as rustls and rcgen read it.
    pub(super) fn pkcs8(&self) -> PrivatePkcs8KeyDer<'static> {
        [PKCS8_PREFIX.as_slice(), &self.secret].concat().into()
    }

    /// Reads a key from PKCS#8 in DER, as [`NodeKey::pkcs8`] writes it.
    pub(super) fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let secret = der.strip_prefix(&PKCS8_PREFIX)?;
        Some(Self::from_secret(secret.try_into().ok()?))
    }

    /// Returns the key as PEM.
    pub(super) fn to_pem(&self) -> Result<String, IdentityError> {
        Ok(self.pair()?.serialize_pem())
    }

    /// Returns the key as libp2p holds it.
    pub(crate) fn libp2p(&self) -> libp2p::identity::Keypair {
        libp2p::identity::Keypair::ed25519_from_bytes(self.secret).expect("every 32 bytes are an ed25519 secret")
    }

    fn from_secret(secret: [u8; 32]) -> Self {
        let pair = libp2p::identity::Keypair::ed25519_from_bytes(secret).expect("every 32 bytes are an ed25519 secret");
        let public = pair.try_into_ed25519().expect("the key was made as ed25519").public().to_bytes();
        Self { secret, id: NodeId(public) }
    }

    fn pair(&self) -> Result<KeyPair, IdentityError> {
        Ok(KeyPair::from_pkcs8_der_and_sign_algo(&self.pkcs8(), &PKCS_ED25519)?)
    }
}

/// Returns the libp2p peer id of a node: the identity multihash of the same key.
pub fn peer_id_of(node: &NodeId) -> PeerId {
    let mut encoded = [0; PEER_ID_PREFIX.len() + 32];
    encoded[..PEER_ID_PREFIX.len()].copy_from_slice(&PEER_ID_PREFIX);
    encoded[PEER_ID_PREFIX.len()..].copy_from_slice(&node.0);
    let hash = Multihash::wrap(IDENTITY_MULTIHASH, &encoded).expect("36 bytes fit a multihash of 64");
    PeerId::from_multihash(hash).expect("an identity multihash of 36 bytes is a peer id")
}

/// Returns the node behind a libp2p peer id, or nothing if that is no ed25519 key.
pub fn node_id_of_peer(peer: &PeerId) -> Option<NodeId> {
    let hash: &Multihash<64> = peer.as_ref();
    let key = hash.digest().strip_prefix(&PEER_ID_PREFIX)?;
    if hash.code() != IDENTITY_MULTIHASH {
        return None;
    }
    Some(NodeId(key.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_peer_id_and_key_are_one() {
        let key = NodeKey::generate();
        let peer = key.libp2p().public().to_peer_id();
        assert_eq!(peer, peer_id_of(&key.node_id()));
        assert_eq!(node_id_of_peer(&peer), Some(key.node_id()));
        let again = NodeKey::from_pkcs8(key.pkcs8().secret_pkcs8_der()).expect("reads its own form");
        assert_eq!(again.node_id(), key.node_id());
    }

    #[test]
    fn a_peer_id_that_is_no_ed25519_key_is_no_node() {
        let hashed = Multihash::wrap(0x12, &[7; 32]).expect("fits");
        assert_eq!(node_id_of_peer(&PeerId::from_multihash(hashed).expect("a sha-256 peer id")), None);
    }
}
