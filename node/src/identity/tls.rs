//! TLS as shoal speaks it: version 1.3, aws-lc-rs, both sides with a leaf of this shoal's CA, told apart by ALPN.
//!
//! Input: an [`Identity`]. Output: configurations for rustls. The one exception from mutual TLS is admission, where
//! the joiner has no certificate yet and knows the CA only by its fingerprint.

use std::sync::{Arc, LazyLock};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{Identity, IdentityError, SERVER_NAME};

/// ALPN of gossip between nodes, over TCP.
pub const GOSSIP_ALPN: &[u8] = b"shoal-gossip/1";
/// ALPN of admission, over TCP on the same port.
pub const ADMIT_ALPN: &[u8] = b"shoal-admit/1";
/// ALPN of the tunnel between nodes, over QUIC.
pub const TUNNEL_ALPN: &[u8] = b"shoal-tunnel/1";

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let suites = [aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384];
    let chacha = aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
    Arc::new(CryptoProvider {
        cipher_suites: suites.into_iter().chain([chacha]).collect(),
        ..aws_lc_rs::default_provider()
    })
});

/// Returns the one crypto provider of this program: aws-lc-rs, AES-128-GCM first, because it is the fastest here.
pub fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// Returns the server name that every client of shoal asks for.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("the constant is a DNS name")
}

impl Identity {
    /// Returns the configuration to accept gossip: only nodes of this shoal.
    pub fn gossip_server(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        self.mutual_server(GOSSIP_ALPN)
    }

    /// Returns the configuration to dial gossip: only nodes of this shoal.
    pub fn gossip_client(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        self.mutual_client(GOSSIP_ALPN)
    }

    /// Returns the configuration to accept tunnels: only nodes of this shoal.
    pub fn tunnel_server(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        self.mutual_server(TUNNEL_ALPN)
    }

    /// Returns the configuration to dial tunnels: only nodes of this shoal.
    pub fn tunnel_client(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        self.mutual_client(TUNNEL_ALPN)
    }

    /// Returns the configuration to accept joiners, who have no certificate. Shows the CA, for them to compare.
    pub(crate) fn admit_server(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
        let chain = vec![self.leaf().clone(), self.ca().clone()];
        let config = builder.with_no_client_auth().with_single_cert(chain, self.private_key())?;
        Ok(Arc::new(settled(config, ADMIT_ALPN)))
    }

    fn mutual_server(&self, alpn: &[u8]) -> Result<Arc<ServerConfig>, IdentityError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(self.ca())?), provider()).build()?;
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
        let config = builder
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.leaf().clone()], self.private_key())?;
        Ok(Arc::new(settled(config, alpn)))
    }

    fn mutual_client(&self, alpn: &[u8]) -> Result<Arc<ClientConfig>, IdentityError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(self.ca())?), provider()).build()?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(vec![self.leaf().clone()], self.private_key())?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        self.key().pkcs8().into()
    }
}

/// Returns a store that trusts this one CA.
pub(super) fn roots(ca: &CertificateDer<'_>) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned())?;
    Ok(roots)
}

/// Sets what all servers share. No session tickets: every connection shows its certificate again, which a revocation
/// needs, and nothing is sent to a client before its first message.
fn settled(mut config: ServerConfig, alpn: &[u8]) -> ServerConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.send_tls13_tickets = 0;
    config
}
