//! Certificates for tests: a CA, and leaves that name nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_ED25519,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use shoal_cluster::id::NodeId;
use shoal_overlay::Identify;

/// The DNS name in every leaf.
pub(crate) const SERVER_NAME: &str = "node.shoal.internal";
const ALPN: &[u8] = b"shoal-overlay/1";

/// A certificate authority, and which node each of its leaves belongs to.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    leaves: Arc<Mutex<BTreeMap<Vec<u8>, NodeId>>>,
}

/// What one node needs for mutual TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) identify: Arc<Identify>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap(), leaves: Arc::default() }
    }

    /// Issues a leaf for `node` and the configurations around it.
    pub(crate) fn issue(&self, node: NodeId) -> Tls {
        self.issue_trusting(node, self)
    }

    /// Issues a leaf of this CA for `node`, which itself trusts the leaves of another CA.
    pub(crate) fn issue_trusting(&self, node: NodeId, trusted: &Self) -> Tls {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        self.leaves.lock().unwrap().insert(leaf.to_vec(), node);
        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(trusted.issuer.as_ref().der().clone()).unwrap();
        let roots = Arc::new(roots);
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .unwrap();
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![leaf.clone()], secret.clone_key())
            .unwrap();
        server.alpn_protocols = vec![ALPN.to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![leaf], secret)
            .unwrap();
        client.alpn_protocols = vec![ALPN.to_vec()];
        let leaves = Arc::clone(&trusted.leaves);
        let identify: Arc<Identify> = Arc::new(move |chain: &[CertificateDer<'_>]| {
            chain.first().and_then(|leaf| leaves.lock().unwrap().get(leaf.as_ref()).copied())
        });
        Tls { server: Arc::new(server), client: Arc::new(client), identify }
    }
}
