//! The joining side: finds the seed, makes sure that it belongs to the shoal of the token, asks, and checks the answer.
//!
//! Input: seed addresses, a token, the new node's key and name. Output: [`Admitted`], or an error that says whether
//! trying again can help.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use libp2p::tcp::tokio::TcpStream;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::time::{sleep, timeout};
use tracing::info;

use super::{
    ANSWER_BYTES_MAX, Admitted, Answer, Grant, ReadError, Refusal, Request, STEP_TIMEOUT, read_value, write_value,
};
use crate::identity::{
    ADMIT_ALPN, Authority, DataKey, IdentityError, NodeKey, Secret, Secrets, Token, authority, fingerprint, node_id_of,
    provider, server_name, short, tls,
};

/// The port of gossip and admission when a seed names none.
pub const DEFAULT_PORT: u16 = 7946;
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MOST: Duration = Duration::from_secs(10);

/// Why a seed did not admit this node. Nothing was kept on either side.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The seed's name has no address.
    #[error("cannot find the address of the seed {seed}: {source}")]
    Resolve {
        /// The seed as it was given.
        seed: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody answers there, or the connection broke.
    #[error("cannot reach the seed {seed}: {source}")]
    Unreachable {
        /// The seed as it was given.
        seed: String,
        /// What the system said.
        source: io::Error,
    },
    /// The seed was silent for too long.
    #[error("the seed {seed} does not answer")]
    Timeout {
        /// The seed as it was given.
        seed: String,
    },
    /// What answers there is not a shoal.
    #[error("what listens at {seed} is not a shoal that admits nodes: {reason}")]
    NotAShoal {
        /// The seed as it was given.
        seed: String,
        /// What TLS said.
        reason: String,
    },
    /// The seed belongs to another CA than the token.
    #[error(
        "the seed {seed} belongs to another shoal (CA {found}; the token is for CA {expected}); check address and token"
    )]
    OtherShoal {
        /// The seed as it was given.
        seed: String,
        /// Begin of the fingerprint of its CA.
        found: String,
        /// Begin of the fingerprint in the token.
        expected: String,
    },
    /// The shoal refused, with a reason.
    #[error("the shoal at {seed} refused this node: {refusal}")]
    Refused {
        /// The seed as it was given.
        seed: String,
        /// The reason.
        refusal: Refusal,
    },
    /// The answer makes no sense.
    #[error("the answer of the seed {seed} {what}")]
    Nonsense {
        /// The seed as it was given.
        seed: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// This side cannot make its request.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no seed to ask.
    #[error("no seed to ask; name one with --seed HOST:PORT")]
    NoSeed,
}

impl AdmissionError {
    /// Tells whether asking the same seed again cannot help.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Refused { refusal, .. } => refusal.is_definite(),
            Self::OtherShoal { .. } | Self::Identity(_) | Self::NoSeed => true,
            Self::Resolve { .. } | Self::Unreachable { .. } | Self::Timeout { .. } => false,
            Self::NotAShoal { .. } | Self::Nonsense { .. } => false,
        }
    }
}

/// Asks the seeds in turn, round after round with growing pauses, until one admits this node. Every failure is told to
/// `on_failure`. Gives up only when all seeds of one round refused for good; the error is that of the last.
pub async fn join_any(
    seeds: &[String],
    token: &Token,
    key: &NodeKey,
    name: &str,
    mut on_failure: impl FnMut(&str, &AdmissionError),
) -> Result<Admitted, AdmissionError> {
    let mut pause = BACKOFF_FIRST;
    loop {
        let mut definite = Some(AdmissionError::NoSeed);
        let mut hopeless = true;
        for seed in seeds {
            match join(seed, token, key, name).await {
                Ok(admitted) => return Ok(admitted),
                Err(error) => {
                    on_failure(seed, &error);
                    hopeless &= error.is_definite();
                    definite = Some(error);
                }
            }
        }
        if let Some(error) = definite.filter(|_| hopeless) {
            return Err(error);
        }
        sleep(pause).await;
        pause = (pause * 2).min(BACKOFF_MOST);
    }
}

/// Asks one seed, `host:port` or `host`, to admit the node that holds `key`. Takes at most some tens of seconds.
pub async fn join(seed: &str, token: &Token, key: &NodeKey, name: &str) -> Result<Admitted, AdmissionError> {
    let wall_ms = u64::try_from(authority::since_1970().as_millis()).unwrap_or(u64::MAX);
    join_at(seed, token, key, name, wall_ms).await
}

/// Does what [`join`] does with a wall clock that shows `wall_ms`.
pub(crate) async fn join_at(
    seed: &str,
    token: &Token,
    key: &NodeKey,
    name: &str,
    wall_ms: u64,
) -> Result<Admitted, AdmissionError> {
    let (mut stream, address) = connect(seed, token).await?;
    let request = Request {
        secret: token.secret.bytes(),
        signing_request: key.signing_request()?,
        name: name.to_owned(),
        wall_ms,
    };
    let unreachable = |source| AdmissionError::Unreachable { seed: seed.to_owned(), source };
    let silent = |_| AdmissionError::Timeout { seed: seed.to_owned() };
    timeout(STEP_TIMEOUT, write_value(&mut stream, &request)).await.map_err(silent)?.map_err(unreachable)?;
    let nonsense = |what| AdmissionError::Nonsense { seed: seed.to_owned(), what };
    let answer = timeout(STEP_TIMEOUT, read_value::<Answer, ANSWER_BYTES_MAX>(&mut stream)).await.map_err(silent)?;
    match answer {
        Ok(Answer::Admitted(grant)) => {
            let ahead_ms = i128::from(wall_ms) - i128::from(grant.wall_ms);
            let admitted = accept(*grant, token, key).map_err(nonsense)?;
            info!(%address, node = %key.node_id(), clock_ahead_ms = %ahead_ms, "admitted to the shoal");
            Ok(admitted)
        }
        Ok(Answer::Refused(refusal)) => Err(AdmissionError::Refused { seed: seed.to_owned(), refusal }),
        Err(ReadError::Version(ours)) => {
            Err(AdmissionError::Refused { seed: seed.to_owned(), refusal: Refusal::Version { ours } })
        }
        Err(ReadError::Unreadable) => Err(nonsense("cannot be read; use the same version of shoal on all nodes")),
        Err(ReadError::Io(source)) => Err(unreachable(source)),
    }
}

/// Checks that what was granted is for this key and from the CA in the token.
fn accept(grant: Grant, token: &Token, key: &NodeKey) -> Result<Admitted, &'static str> {
    let (leaf, ca) = (CertificateDer::from(grant.leaf), CertificateDer::from(grant.ca));
    if fingerprint(&ca) != token.fingerprint {
        return Err("names another CA than the token");
    }
    if node_id_of(std::slice::from_ref(&leaf)) != Some(key.node_id()) {
        return Err("holds the certificate of another node");
    }
    let authority = grant.authority.map(|(ca_key, manager, worker)| Authority {
        ca_key,
        secrets: Secrets { manager: Secret::from(manager), worker: Secret::from(worker) },
    });
    let data_key = DataKey::from_bytes(grant.data_key);
    Ok(Admitted { leaf, ca, authority, data_key, members: grant.members })
}

/// Connects to the first address of the seed that answers, by TLS.
async fn connect(seed: &str, token: &Token) -> Result<(TlsStream<TcpStream>, SocketAddr), AdmissionError> {
    let resolved = timeout(STEP_TIMEOUT, tokio::net::lookup_host(with_port(seed))).await;
    let resolved = resolved.map_err(|_| AdmissionError::Timeout { seed: seed.to_owned() })?;
    let addresses = resolved.map_err(|source| AdmissionError::Resolve { seed: seed.to_owned(), source })?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match timeout(STEP_TIMEOUT, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok((handshake(seed, token, socket).await?, address)),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(AdmissionError::Unreachable { seed: seed.to_owned(), source: last })
}

async fn handshake(
    seed: &str,
    token: &Token,
    socket: tokio::net::TcpStream,
) -> Result<TlsStream<TcpStream>, AdmissionError> {
    let pinned = Arc::new(Pinned { expected: token.fingerprint, found: Mutex::new(None) });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(IdentityError::from)?
        .dangerous()
        .with_custom_certificate_verifier(pinned.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![ADMIT_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    let connecting = TlsConnector::from(Arc::new(config)).connect(server_name(), TcpStream(socket));
    let error = match timeout(STEP_TIMEOUT, connecting).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => error,
        Err(_) => return Err(AdmissionError::Timeout { seed: seed.to_owned() }),
    };
    let found = pinned.found.lock().map(|found| *found).unwrap_or_default();
    Err(match found {
        Some(found) => AdmissionError::OtherShoal {
            seed: seed.to_owned(),
            found: short(&found),
            expected: short(&token.fingerprint),
        },
        None if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            AdmissionError::NotAShoal { seed: seed.to_owned(), reason: error.to_string() }
        }
        None => AdmissionError::Unreachable { seed: seed.to_owned(), source: error },
    })
}

/// Adds the default port to a seed that names none.
fn with_port(seed: &str) -> String {
    if let Ok(address) = seed.parse::<IpAddr>() {
        return SocketAddr::new(address, DEFAULT_PORT).to_string();
    }
    match seed.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => seed.to_owned(),
        Some(_) | None => format!("{seed}:{DEFAULT_PORT}"),
    }
}

/// Trusts exactly the CA whose certificate has the fingerprint in the token, and notes another that was shown.
#[derive(Debug)]
struct Pinned {
    expected: [u8; 32],
    found: Mutex<Option<[u8; 32]>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(ca) = intermediates.iter().find(|ca| fingerprint(ca) == self.expected) else {
            if let (Some(ca), Ok(mut found)) = (intermediates.last(), self.found.lock()) {
                *found = Some(fingerprint(ca));
            }
            return Err(CertificateError::UnknownIssuer.into());
        };
        let other = |_| rustls::Error::from(CertificateError::BadEncoding);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(tls::roots(ca).map_err(other)?), provider())
                .build()
                .map_err(|_| CertificateError::BadEncoding)?;
        // A clock here that is behind must not end the handshake: the shoal's answer says by how much it is off.
        let issued = authority::validity(end_entity).and_then(|(from, _)| u64::try_from(from).ok()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().max(issued + 1)));
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_without_a_port_gets_the_default() {
        for (seed, expected) in [
            ("host", "host:7946"),
            ("host:80", "host:80"),
            ("10.0.0.1", "10.0.0.1:7946"),
            ("::1", "[::1]:7946"),
            ("[::1]:9", "[::1]:9"),
            ("host:http", "host:http:7946"),
        ] {
            assert_eq!(with_port(seed), expected);
        }
    }
}
