//! Certificates: the root CA that the founder makes, and the leaves that any holder of its key issues.
//!
//! Input: keys and signing requests. Output: certificates in DER, and what the leaf of a verified peer says.
//! A leaf names the node (CN), the shoal (O) and the role (OU), and carries one fixed DNS name, so that the stock
//! verifiers of rustls can be used on both sides.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};
use shoal_cluster::id::NodeId;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::IdentityError;

/// The DNS name in every leaf, and the server name that every client asks for.
pub const SERVER_NAME: &str = "node.shoal.internal";
/// How far certificates reach back, so that a node whose clock is a little behind takes them.
const BACKDATED: Duration = Duration::from_secs(3600);
/// How long leaves and the root are valid; rotation comes before this matters.
const LEAF_VALID: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const ROOT_VALID: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// What a node may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May write intent and admit nodes. All managers are equals.
    Manager,
    /// Runs tasks.
    Worker,
}

impl Role {
    /// Returns the word in the certificate.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Worker => "worker",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Manager, Self::Worker].into_iter().find(|role| role.as_str() == text)
    }
}

/// Makes a root CA: a new key and its self-signed certificate.
pub(super) fn found_root() -> Result<(CertificateDer<'static>, KeyPair), IdentityError> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let short = super::token::base32(&Sha256::digest(key.public_key_raw())[..5]);
    let mut params = dated(ROOT_VALID);
    params.distinguished_name = super::name_of(&format!("shoal {short}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok((params.self_signed(&key)?.der().clone(), key))
}

/// Issues a leaf for the key in a signing request. Only the key is taken from the request, everything else is ours.
pub(super) fn issue_leaf(
    root: &CertificateDer<'_>,
    key: &KeyPair,
    request: &[u8],
    role: Role,
) -> Result<(NodeId, CertificateDer<'static>), IdentityError> {
    let request = CertificateSigningRequestDer::from(request);
    let mut request = CertificateSigningRequestParams::from_der(&request)?;
    if request.public_key.algorithm() != &PKCS_ED25519 {
        return Err(IdentityError::NotEd25519);
    }
    let raw = rcgen::PublicKeyData::der_bytes(&request.public_key);
    let node = NodeId(raw.try_into().map_err(|_| IdentityError::NotEd25519)?);
    let mut params = dated(LEAF_VALID);
    params.distinguished_name = leaf_name(&node, role);
    params.subject_alt_names = vec![SanType::DnsName(Ia5String::try_from(SERVER_NAME)?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    request.params = params;
    let issuer = Issuer::from_ca_cert_der(root, key)?;
    Ok((node, request.signed_by(&issuer)?.der().clone()))
}

/// Returns the fingerprint of a certificate: SHA-256 of its DER.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// Returns the node that the first certificate, the leaf, belongs to, or nothing if its key is not ed25519.
/// Says nothing about who signed it: only for chains that TLS has verified.
pub fn node_id_of(chain: &[CertificateDer<'_>]) -> Option<NodeId> {
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    let key = leaf.public_key();
    if key.algorithm.algorithm != x509_parser::oid_registry::OID_SIG_ED25519 {
        return None;
    }
    Some(NodeId(key.subject_public_key.data.as_ref().try_into().ok()?))
}

/// Returns the role in a leaf that TLS has verified.
pub fn role_of(leaf: &CertificateDer<'_>) -> Option<Role> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    leaf.subject().iter_organizational_unit().next().and_then(|unit| Role::parse(unit.as_str().ok()?))
}

/// Returns a certificate as PEM (RFC 7468), for people and for the Docker API.
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let encoded = base64(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|&byte| char::from(byte)));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// Returns the bytes in base 64 (RFC 4648 §4) with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let digit = char::from(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]);
            text.push(if place <= group.len() { digit } else { '=' });
        }
    }
    text
}

/// Returns from when and until when a certificate is valid, in seconds since 1970.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// Returns the time since 1970 by the wall clock, zero if the clock is set before.
pub(super) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Returns parameters that are valid from a little before now, with a serial number of their own.
fn dated(valid: Duration) -> CertificateParams {
    let now = Duration::from_secs(since_1970().as_secs());
    let epoch = date_time_ymd(1970, 1, 1);
    let mut serial = super::random::<16>();
    serial[0] &= 0x7f;
    let mut params = CertificateParams::default();
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now + valid;
    params.serial_number = Some(serial.to_vec().into());
    params
}

fn leaf_name(node: &NodeId, role: Role) -> DistinguishedName {
    let mut name = super::name_of(&node.to_string());
    name.push(DnType::OrganizationName, "shoal");
    name.push(DnType::OrganizationalUnitName, role.as_str());
    name
}
