//! Admission: how a machine with a token becomes a node with a certificate.
//!
//! One request and one answer over TLS on the gossip port, told from gossip by ALPN. The joiner knows the CA only by
//! the fingerprint in its token, and sends its secret only to a seed that proves to belong to that CA. The shoal gives
//! nothing to a joiner before its secret, clock and name are found good: see `docs/protocol.md#admission`.

mod join;
mod serve;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::data_key::DATA_KEY_BYTES;
use super::token::SECRET_BYTES;
use super::{Authority, Contacts, DataKey};

pub use join::join_any;
#[cfg(test)]
pub(crate) use join::{AdmissionError, join, join_at};
pub use serve::{Desk, channel, serve};

/// Version of the request and the answer. Sent before them, so that it can always be read.
const VERSION: u16 = 2;
/// Longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Members named in an answer; the rest is learnt by gossip.
const MEMBERS_MAX: usize = 256;
/// Addresses named for each member.
const ADDRESSES_MAX: usize = 8;
/// Longest node name, as in DNS.
const NAME_BYTES_MAX: usize = 63;
/// Time for each step of the exchange, on both sides.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// How far the clock of a joiner may be off. The same bound as for stamps in gossip, or its writes would be refused.
pub const CLOCK_BOUND: Duration = Duration::from_secs(60);

const _: () = assert!(MEMBERS_MAX * (33 + ADDRESSES_MAX * 20) + 8192 < ANSWER_BYTES_MAX);

/// What the joiner sends.
#[derive(Serialize, Deserialize)]
struct Request {
    secret: [u8; SECRET_BYTES],
    /// PKCS#10 in DER, signed by the node key.
    signing_request: Vec<u8>,
    name: String,
    /// The joiner's wall clock, in milliseconds since 1970.
    wall_ms: u64,
}

/// What it gets.
#[derive(Serialize, Deserialize)]
enum Answer {
    Admitted(Box<Grant>),
    Refused(Refusal),
}

#[derive(Serialize, Deserialize)]
struct Grant {
    leaf: Vec<u8>,
    ca: Vec<u8>,
    /// Managers only: the CA's key in PKCS#8, the secrets of the tokens for managers and workers.
    authority: Option<(Vec<u8>, [u8; SECRET_BYTES], [u8; SECRET_BYTES])>,
    /// The key that seals secrets and configs.
    data_key: [u8; DATA_KEY_BYTES],
    members: Contacts,
    /// The admitter's wall clock, in milliseconds since 1970.
    wall_ms: u64,
}

/// Why a shoal does not admit a joiner. Nothing about the shoal is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The secret in the token is none of this shoal's.
    #[error("the token is wrong or was replaced; `shoal up` on a node of the shoal prints the one that is valid")]
    WrongToken,
    /// The joiner's clock is too far from the shoal's.
    #[error("the clock here is {} s {} the shoal's, {bound_s} s are allowed; set the clock and try again", ahead_ms.unsigned_abs() / 1000, if *ahead_ms < 0 { "behind" } else { "ahead of" })]
    Clock {
        /// How far the joiner is ahead, in milliseconds; negative if it is behind.
        ahead_ms: i64,
        /// The bound in seconds.
        bound_s: u64,
    },
    /// Another node has this name.
    #[error("another node is called {name} already; choose another name with --name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The name is not one.
    #[error(
        "the node name is not valid: 1 to 63 letters, digits, dots, hyphens or underscores; choose another with --name"
    )]
    BadName,
    /// The seed cannot admit anybody.
    #[error("the seed is not a manager; use the address of a manager")]
    NotManager,
    /// The joiner speaks another version.
    #[error("the shoal speaks version {ours} of admission; use the same version of shoal on all nodes")]
    Version {
        /// The version of the shoal.
        ours: u16,
    },
    /// The request cannot be read.
    #[error("the shoal could not read the request; use the same version of shoal on all nodes")]
    BadRequest,
    /// This address asks too often.
    #[error("too many attempts from this address; it is tried again")]
    TooMany,
    /// The shoal itself is in trouble; its log says more.
    #[error("the seed could not issue a certificate; its log says why")]
    Internal,
}

impl Refusal {
    /// Tells whether trying again cannot help.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::WrongToken
            | Self::Clock { .. }
            | Self::NameTaken { .. }
            | Self::BadName
            | Self::Version { .. }
            | Self::BadRequest => true,
            Self::NotManager | Self::TooMany | Self::Internal => false,
        }
    }
}

/// What a joiner was given.
#[derive(Debug)]
pub struct Admitted {
    /// Its certificate.
    pub leaf: CertificateDer<'static>,
    /// The CA's certificate; its fingerprint is the one in the token.
    pub ca: CertificateDer<'static>,
    /// For managers.
    pub authority: Option<Authority>,
    /// Seals secrets and configs.
    pub data_key: DataKey,
    /// Members that the admitter knows, itself among them: at most 256.
    pub members: Contacts,
}

/// A joiner at the door: its TLS stream, which shows nothing of who it is.
pub struct Visitor {
    pub(crate) stream: Box<dyn Duplex>,
    pub(crate) address: SocketAddr,
}

impl fmt::Debug for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visitor").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A stream in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Writes length, version and value: the length counts the version.
async fn write_value<V: Serialize>(stream: &mut (impl AsyncWrite + Unpin), value: &V) -> io::Result<()> {
    let body = bincode::serde::encode_to_vec(value, bincode::config::standard()).map_err(io::Error::other)?;
    let mut bytes = u32::try_from(body.len() + 2).map_err(io::Error::other)?.to_be_bytes().to_vec();
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// What came over the stream instead of a value.
enum ReadError {
    Version(u16),
    Unreadable,
    Io(io::Error),
}

/// Reads what [`write_value`] writes, of at most `MAX` bytes.
async fn read_value<V: DeserializeOwned, const MAX: usize>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<V, ReadError> {
    let mut head = [0; 6];
    stream.read_exact(&mut head).await.map_err(ReadError::Io)?;
    let [a, b, c, d, major, minor] = head;
    let version = u16::from_be_bytes([major, minor]);
    if version != VERSION {
        return Err(ReadError::Version(version));
    }
    let length = (u32::from_be_bytes([a, b, c, d]) as usize).checked_sub(2).ok_or(ReadError::Unreadable)?;
    if length > MAX {
        return Err(ReadError::Unreadable);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(ReadError::Io)?;
    let limited = bincode::config::standard().with_limit::<MAX>();
    match bincode::serde::decode_from_slice(&body, limited) {
        Ok((value, read)) if read == length => Ok(value),
        Ok(_) | Err(_) => Err(ReadError::Unreadable),
    }
}

/// Tells whether a node may be called this.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}
