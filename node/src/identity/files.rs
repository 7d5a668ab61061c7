//! The identity on disk: `<data>/identity/`, written as a whole and renamed into place.
//!
//! | file | mode | holds |
//! |---|---|---|
//! | `node.key` | 0600 | the node key, PKCS#8 in PEM |
//! | `node.crt`, `ca.crt` | 0644 | the leaf and the CA's certificate, DER |
//! | `ca.key`, `tokens` | 0600 | managers only: the CA's key, the secrets of the tokens (two lines, base 32) |
//! | `data.key` | 0600 | the key that seals secrets and configs, 32 bytes |
//! | `name` | 0644 | the node's name |
//! | `contacts` | 0644 | the members named at admission: a line each, key in hex and addresses |

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{KeyPair, PKCS_ED25519};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use shoal_cluster::id::NodeId;

use super::{Contacts, DataKey, Identity, IdentityError, NodeKey, Secret, Secrets, Token, authority, tls};
use crate::store::file;

/// Name, bytes and mode of each file.
type Files = Vec<(&'static str, Vec<u8>, u32)>;

/// Returns the folder of the identity in a data directory.
pub(super) fn folder(data: &Path) -> PathBuf {
    data.join("identity")
}

/// Forgets who the node is and what it knows of its shoal; images and volumes stay.
pub(super) fn forget(data: &Path) -> io::Result<()> {
    let (identity, state, old) = (folder(data), data.join("state"), data.join("identity.old"));
    // Without an identity the rest means nothing, so that goes first, at once.
    fs::rename(&identity, &old)?;
    file::sync_directory(data)?;
    fs::remove_dir_all(&state)?;
    fs::remove_dir_all(&old)
}

/// Writes all files to a folder beside the final one and renames it into place, so that no half identity is seen.
pub(super) fn save(data: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let target = folder(data);
    if target.exists() {
        return Err(IdentityError::Exists { path: target });
    }
    if data.join("state").join("log").exists() {
        return Err(IdentityError::Orphaned { path: data.to_path_buf() });
    }
    let new = data.join("identity.new");
    let failed = |source| IdentityError::Unwritable { path: new.clone(), source };
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let files = contents(identity)?;
    let write = || -> io::Result<()> {
        file::create_directory(&new)?;
        for (name, bytes, mode) in &files {
            file::write_durably(&new.join(name), bytes, *mode)?;
        }
        file::sync_directory(&new)?;
        fs::rename(&new, &target)?;
        file::sync_directory(data)
    };
    write().map_err(failed)
}

/// Returns name, bytes and mode of each file.
fn contents(identity: &Identity) -> Result<Files, IdentityError> {
    let mut files = vec![
        ("node.key", identity.key.to_pem()?.into_bytes(), file::SECRET_MODE),
        ("node.crt", identity.leaf.to_vec(), file::PUBLIC_MODE),
        ("ca.crt", identity.ca.to_vec(), file::PUBLIC_MODE),
        ("data.key", identity.data_key.bytes().to_vec(), file::SECRET_MODE),
        ("name", format!("{}\n", identity.name).into_bytes(), file::PUBLIC_MODE),
        ("contacts", write_contacts(&identity.contacts).into_bytes(), file::PUBLIC_MODE),
    ];
    if let Some(authority) = &identity.authority {
        files.push(("ca.key", authority.serialize_pem().into_bytes(), file::SECRET_MODE));
    }
    if let Some(secrets) = identity.secrets {
        let token = |secret| Token { fingerprint: identity.ca_fingerprint(), secret };
        let text = format!("{}\n{}\n", token(secrets.manager), token(secrets.worker));
        files.push(("tokens", text.into_bytes(), file::SECRET_MODE));
    }
    Ok(files)
}

/// Reads all files and checks that they fit together.
pub(super) fn load(data: &Path) -> Result<Identity, IdentityError> {
    let folder = folder(data);
    match fs::symlink_metadata(&folder) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(IdentityError::Missing { path: data.to_path_buf() });
        }
        Err(source) => return Err(IdentityError::Unreadable { path: folder, source }),
    }
    let key_path = folder.join("node.key");
    let key = pkcs8(&read_secret(&key_path)?)
        .and_then(|der| NodeKey::from_pkcs8(der.secret_pkcs8_der()))
        .ok_or(IdentityError::Damaged { path: key_path, what: "is not an ed25519 key in PKCS#8" })?;
    let authority = match optional(&folder.join("ca.key"))? {
        Some(text) => Some(parse_ca_key(&folder.join("ca.key"), &text)?),
        None => None,
    };
    let secrets = match optional(&folder.join("tokens"))? {
        Some(text) => Some(parse_tokens(&folder.join("tokens"), &text)?),
        None => None,
    };
    let data_path = folder.join("data.key");
    let data_key = read_secret_bytes(&data_path)?
        .try_into()
        .map(DataKey::from_bytes)
        .map_err(|_| IdentityError::Damaged { path: data_path, what: "is not a key of 32 bytes" })?;
    let leaf = read_certificate(&folder.join("node.crt"))?;
    let ca = read_certificate(&folder.join("ca.crt"))?;
    let name = read(&folder.join("name"))?.trim().to_owned();
    let contacts_path = folder.join("contacts");
    let contacts = parse_contacts(&read(&contacts_path)?)
        .ok_or(IdentityError::Damaged { path: contacts_path, what: "does not hold node keys and addresses" })?;
    let identity = Identity { name, key, leaf, ca, authority, secrets, contacts, data_key };
    check(&folder, &identity)?;
    Ok(identity)
}

/// Checks that key, leaf and CA belong together and that the leaf is still valid.
pub(super) fn check(folder: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let damaged = |file: &str, what| IdentityError::Damaged { path: folder.join(file), what };
    if authority::node_id_of(std::slice::from_ref(&identity.leaf)) != Some(identity.node_id()) {
        return Err(damaged("node.crt", "is not the certificate of the key in node.key"));
    }
    let (_, until) = authority::validity(&identity.leaf).ok_or_else(|| damaged("node.crt", "is not a certificate"))?;
    if until < i64::try_from(authority::since_1970().as_secs()).unwrap_or(i64::MAX) {
        return Err(IdentityError::Expired { path: folder.join("node.crt") });
    }
    if !signed_by(&identity.leaf, &identity.ca) {
        return Err(damaged("node.crt", "was not issued by the CA in ca.crt"));
    }
    if let Some(authority) = &identity.authority
        && !holds_key_of(authority, &identity.ca)
    {
        return Err(damaged("ca.key", "is not the key of the certificate in ca.crt"));
    }
    Ok(())
}

/// Reads a CA's key from PKCS#8 in DER, as another manager hands it over.
pub(super) fn read_ca_key(der: &[u8]) -> Result<KeyPair, IdentityError> {
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)?)
}

fn parse_ca_key(path: &Path, text: &str) -> Result<KeyPair, IdentityError> {
    pkcs8(text)
        .and_then(|der| KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).ok())
        .ok_or(IdentityError::Damaged { path: path.to_path_buf(), what: "is not an ed25519 key in PKCS#8" })
}

fn parse_tokens(path: &Path, text: &str) -> Result<Secrets, IdentityError> {
    let mut lines = text.lines().map(|line| line.parse::<Token>().ok().map(|token| token.secret));
    let mut next = || -> Option<Secret> { lines.next().flatten() };
    match (next(), next()) {
        (Some(manager), Some(worker)) => Ok(Secrets { manager, worker }),
        _ => Err(IdentityError::Damaged { path: path.to_path_buf(), what: "does not hold two tokens" }),
    }
}

/// Tells whether a TLS client would take `leaf` for one that `ca` issued, at the time it was issued.
fn signed_by(leaf: &CertificateDer<'_>, ca: &CertificateDer<'_>) -> bool {
    let verify = || -> Option<()> {
        let (from, _) = authority::validity(leaf)?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(from).ok()? + 1));
        let leaf = ParsedCertificate::try_from(leaf).ok()?;
        let algorithms = tls::provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &tls::roots(ca).ok()?, &[], at, algorithms).ok()
    };
    verify().is_some()
}

fn holds_key_of(key: &KeyPair, ca: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(ca)
        .is_ok_and(|(_, parsed)| parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw())
}

fn write_contacts(contacts: &[(NodeId, Vec<SocketAddr>)]) -> String {
    let mut text = String::new();
    for (node, addresses) in contacts {
        text.extend(node.0.iter().map(|byte| format!("{byte:02x}")));
        text.extend(addresses.iter().map(|address| format!(" {address}")));
        text.push('\n');
    }
    text
}

fn parse_contacts(text: &str) -> Option<Contacts> {
    text.lines().map(parse_contact).collect()
}

fn parse_contact(line: &str) -> Option<(NodeId, Vec<SocketAddr>)> {
    let mut words = line.split(' ');
    let key = words.next().filter(|key| key.len() == 64 && key.is_ascii())?;
    let mut node = NodeId([0; 32]);
    for (index, byte) in node.0.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&key[index * 2..index * 2 + 2], 16).ok()?;
    }
    let addresses = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
    Some((node, addresses))
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, IdentityError> {
    let der = fs::read(path).map_err(|source| IdentityError::Unreadable { path: path.to_path_buf(), source })?;
    let certificate = CertificateDer::from(der);
    match authority::validity(&certificate) {
        Some(_) => Ok(certificate),
        None => Err(IdentityError::Damaged { path: path.to_path_buf(), what: "is not a certificate in DER" }),
    }
}

fn pkcs8(text: &str) -> Option<PrivatePkcs8KeyDer<'static>> {
    PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).ok()
}

fn optional(path: &Path) -> Result<Option<String>, IdentityError> {
    match read_secret(path) {
        Ok(text) => Ok(Some(text)),
        Err(IdentityError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a file that holds a secret; one that others may read is refused.
fn read_secret(path: &Path) -> Result<String, IdentityError> {
    check_hidden(path)?;
    read(path)
}

fn read_secret_bytes(path: &Path) -> Result<Vec<u8>, IdentityError> {
    check_hidden(path)?;
    fs::read(path).map_err(|source| IdentityError::Unreadable { path: path.to_path_buf(), source })
}

/// Refuses a file that others may read.
fn check_hidden(path: &Path) -> Result<(), IdentityError> {
    let unreadable = |source| IdentityError::Unreadable { path: path.to_path_buf(), source };
    let mode = fs::metadata(path).map_err(unreadable)?.mode() & 0o777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(IdentityError::Exposed { path: path.to_path_buf(), mode }),
    }
}

fn read(path: &Path) -> Result<String, IdentityError> {
    fs::read_to_string(path).map_err(|source| IdentityError::Unreadable { path: path.to_path_buf(), source })
}
