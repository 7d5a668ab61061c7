//! Identity: who this node is, which shoal it belongs to, and how each is proved.
//!
//! Input: the data directory. Output: an [`Identity`] (node key, leaf, CA), configurations for TLS, join tokens, and
//! certificates for those who show one. `<data>/identity/` exists as a whole or not at all.

pub mod admission;
pub mod authority;
mod data_key;
mod files;
mod key;
mod tls;
mod token;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rcgen::{DistinguishedName, DnType, KeyPair};
use rustls::pki_types::CertificateDer;
use shoal_cluster::id::NodeId;

pub use authority::{Role, SERVER_NAME, fingerprint, node_id_of};
pub use data_key::DataKey;
pub use key::{NodeKey, node_id_of_peer, peer_id_of};
pub use tls::{ADMIT_ALPN, GOSSIP_ALPN, provider, server_name};
pub use token::{Secret, Token};

/// Why there is no usable identity. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The data directory has none yet: found a shoal, or join one.
    #[error("{} holds no identity yet", path.display())]
    Missing {
        /// The data directory.
        path: PathBuf,
    },
    /// The data directory has one already.
    #[error("{} holds the identity of a node already; start it without --seed and --token, or choose another directory with --data-dir", path.display())]
    Exists {
        /// The folder of the identity.
        path: PathBuf,
    },
    /// The data directory has state, but not the identity that it belongs to.
    #[error("{} holds state but no identity; restore its folder `identity` from a backup, or choose another directory with --data-dir", path.display())]
    Orphaned {
        /// The data directory.
        path: PathBuf,
    },
    /// The token is for another shoal than the one in the data directory.
    #[error("{} belongs to the shoal with CA {ours}, but the token is for CA {theirs}; choose another directory with --data-dir, or leave out --token to start the node it holds", path.display())]
    OtherShoal {
        /// The data directory.
        path: PathBuf,
        /// Begin of our CA's fingerprint.
        ours: String,
        /// Begin of the fingerprint in the token.
        theirs: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}; run shoal as the owner of the data directory, or fix owner and mode", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}; make room, or fix owner and mode of the data directory", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others may read a secret.
    #[error("{} may be read by others (mode {mode:o}), so its secret may be known; if you trust who had access, run: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file does not hold what it should, or does not fit the others.
    #[error("{} {what}; restore the folder from a backup, or move the data directory away and join again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The node's certificate has run out.
    #[error("the certificate of this node in {} has expired; move the folder `identity` and the state away and join again", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
    },
    /// The node does not hold the CA's key.
    #[error("this node cannot admit others: it does not hold the key of the CA; ask a manager")]
    NoAuthority,
    /// A signing request is for a key that cannot be a node's.
    #[error("the signing request is not for an ed25519 key")]
    NotEd25519,
    /// A certificate or key could not be made or read.
    #[error("certificate or key: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS refuses the certificate or key.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// TLS cannot verify others with our CA.
    #[error("tls verifier: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A node's identity in one shoal. Every manager holds the CA's key, so there is no founder to lose.
pub struct Identity {
    name: String,
    key: NodeKey,
    leaf: CertificateDer<'static>,
    ca: CertificateDer<'static>,
    authority: Option<KeyPair>,
    secrets: Option<Secrets>,
    contacts: Contacts,
    data_key: DataKey,
}

/// Members and where they listen, as they were when a node was admitted.
pub type Contacts = Vec<(NodeId, Vec<SocketAddr>)>;

/// The secrets of the join tokens, one for each role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// Admits managers.
    pub manager: Secret,
    /// Admits workers.
    pub worker: Secret,
}

/// What only managers hold: the CA's key in PKCS#8, and the secrets of the tokens.
pub struct Authority {
    /// The CA's key, PKCS#8 in DER.
    pub ca_key: Vec<u8>,
    /// The secrets of the tokens.
    pub secrets: Secrets,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(…)")
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node", &self.node_id()).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Identity {
    /// Founds a shoal: makes node key, CA and tokens, and keeps them in `<data>/identity/`. `name` is the node's name.
    pub fn found(data: &Path, name: &str) -> Result<Self, IdentityError> {
        let key = NodeKey::generate();
        let (ca, ca_key) = authority::found_root()?;
        let (_, leaf) = authority::issue_leaf(&ca, &ca_key, &key.signing_request()?, Role::Manager)?;
        let secrets = Secrets { manager: Secret::generate(), worker: Secret::generate() };
        let identity = Self {
            name: name.to_owned(),
            key,
            leaf,
            ca,
            authority: Some(ca_key),
            secrets: Some(secrets),
            contacts: Contacts::new(),
            data_key: DataKey::generate(),
        };
        files::save(data, &identity)?;
        Ok(identity)
    }

    /// Keeps what an admission gave to this node in `<data>/identity/`, after checking that the parts fit together.
    pub fn adopt(data: &Path, name: &str, key: NodeKey, admitted: &admission::Admitted) -> Result<Self, IdentityError> {
        let authority = match &admitted.authority {
            Some(authority) => Some(files::read_ca_key(&authority.ca_key)?),
            None => None,
        };
        let identity = Self {
            name: name.to_owned(),
            key,
            leaf: admitted.leaf.clone(),
            ca: admitted.ca.clone(),
            authority,
            secrets: admitted.authority.as_ref().map(|authority| authority.secrets),
            contacts: admitted.members.clone(),
            data_key: admitted.data_key.clone(),
        };
        files::check(&files::folder(data), &identity)?;
        files::save(data, &identity)?;
        Ok(identity)
    }

    /// Forgets who the node is and what it knows of its shoal: it has left. Images and volumes stay.
    ///
    /// # Errors
    /// The files cannot be removed.
    pub fn forget(data: &Path) -> std::io::Result<()> {
        files::forget(data)
    }

    /// Reads the identity in `<data>/identity/`; [`IdentityError::Missing`] says that there is none yet.
    pub fn load(data: &Path) -> Result<Self, IdentityError> {
        files::load(data)
    }

    /// Refuses a token of another shoal than the one that the data directory belongs to.
    pub fn check_token(&self, data: &Path, token: &Token) -> Result<(), IdentityError> {
        if token.fingerprint == self.ca_fingerprint() {
            return Ok(());
        }
        let (ours, theirs) = (short(&self.ca_fingerprint()), short(&token.fingerprint));
        Err(IdentityError::OtherShoal { path: data.to_path_buf(), ours, theirs })
    }

    /// Returns the id of this node.
    pub fn node_id(&self) -> NodeId {
        self.key.node_id()
    }

    /// Returns the name that the node was founded or admitted with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the members that the admitter named. Kept with the identity, so that a node that is killed before its
    /// core has written down any member still finds the shoal. Empty for the founder.
    pub fn contacts(&self) -> &[(NodeId, Vec<SocketAddr>)] {
        &self.contacts
    }

    /// Returns SHA-256 of the CA's certificate, which names the shoal.
    pub fn ca_fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.ca)
    }

    /// Returns the token that admits a node with this role, if this node is a manager.
    pub fn token(&self, role: Role) -> Option<Token> {
        let secrets = self.secrets?;
        let secret = match role {
            Role::Manager => secrets.manager,
            Role::Worker => secrets.worker,
        };
        Some(Token { fingerprint: self.ca_fingerprint(), secret })
    }

    /// Returns the role that the bearer of this secret is admitted with, or nothing if the secret is wrong.
    /// Takes the same time whichever of the two it is.
    pub(crate) fn role_for(&self, secret: &Secret) -> Option<Role> {
        let secrets = self.secrets.as_ref()?;
        let (manager, worker) = (secrets.manager == *secret, secrets.worker == *secret);
        if manager { Some(Role::Manager) } else { worker.then_some(Role::Worker) }
    }

    /// Issues a leaf for the key in a signing request (PKCS#10 in DER, self-signed by that key).
    pub fn issue(&self, request: &[u8], role: Role) -> Result<(NodeId, CertificateDer<'static>), IdentityError> {
        let authority = self.authority.as_ref().ok_or(IdentityError::NoAuthority)?;
        authority::issue_leaf(&self.ca, authority, request, role)
    }

    /// Returns what a new manager must be given, if this node holds it.
    pub(crate) fn authority(&self) -> Option<Authority> {
        let ca_key = self.authority.as_ref()?.serialize_der();
        Some(Authority { ca_key, secrets: self.secrets? })
    }

    /// Returns the key that seals secrets and configs.
    pub fn data_key(&self) -> &DataKey {
        &self.data_key
    }

    /// Returns the node's key.
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// Returns the node's certificate.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// Returns the CA's certificate.
    pub fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }
}

/// Returns the begin of a fingerprint, enough for people to tell two shoals apart.
pub fn short(fingerprint: &[u8; 32]) -> String {
    token::base32(&fingerprint[..10])
}

/// Returns bytes of the system's randomness.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    tls::provider().secure_random.fill(&mut bytes).expect("the system's randomness does not end");
    bytes
}

/// Returns a distinguished name with this common name.
fn name_of(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

#[cfg(test)]
mod tests;
