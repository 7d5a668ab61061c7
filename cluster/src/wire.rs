//! The only place that encodes and decodes: bincode 2 with a limit, in an envelope with a version and a kind.
//!
//! Input and output: bytes. Messages and durable records share the envelope; see `docs/protocol.md#wire`.
//! A kind that is not known here is no error: the caller ignores it.

use alloc::vec::Vec;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bytes::Slice;
use crate::limits::{MESSAGE_BYTES_MAX, RECORD_BYTES_MAX};

/// The wire version that this code speaks.
pub const WIRE_VERSION: u16 = 1;
/// The oldest wire version that this code understands.
pub const WIRE_VERSION_OLDEST: u16 = 1;
/// What an envelope adds to its body at most, in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 16;

const CONFIG: Configuration<LittleEndian, Varint, Limit<RECORD_BYTES_MAX>> =
    bincode::config::standard().with_limit::<RECORD_BYTES_MAX>();

/// What lies in an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The wire version of its sender.
    pub version: u16,
    /// What the body is; numbered by whoever sends such bodies.
    pub kind: u16,
    /// The body, encoded.
    pub body: &'a [u8],
}

/// Bytes do not decode. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// There are more bytes than allowed.
    #[error("message is too long")]
    Length,
    /// The envelope or the body is malformed.
    #[error("message does not decode")]
    Malformed,
    /// There are bytes after the end.
    #[error("message has bytes after its end")]
    Trailing,
    /// The sender speaks a wire version that was dropped.
    #[error("message has a wire version that is no longer spoken")]
    Version,
}

impl WireError {
    /// Returns the reason in words, for events.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Length => "message is too long",
            Self::Malformed => "message does not decode",
            Self::Trailing => "message has bytes after its end",
            Self::Version => "message has a wire version that is no longer spoken",
        }
    }
}

/// Returns the encoded value.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, CONFIG).expect("our own types always encode")
}

/// Decodes a value that takes all of the bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match decode_prefix(bytes)? {
        (value, used) if used == bytes.len() => Ok(value),
        _ => Err(WireError::Trailing),
    }
}

/// Returns the value in an envelope of this kind.
pub fn seal<T: Serialize>(kind: u16, value: &T) -> Vec<u8> {
    encode(&(WIRE_VERSION, kind, Slice(&encode(value))))
}

/// Opens an envelope of at most `bytes_max` bytes.
pub fn open(bytes: &[u8], bytes_max: usize) -> Result<Envelope<'_>, WireError> {
    if bytes.len() > bytes_max {
        return Err(WireError::Length);
    }
    let decoded = bincode::serde::borrow_decode_from_slice(bytes, CONFIG).map_err(|_| WireError::Malformed)?;
    let ((version, kind, body), used): ((u16, u16, &[u8]), usize) = decoded;
    if used != bytes.len() {
        return Err(WireError::Trailing);
    }
    if version < WIRE_VERSION_OLDEST {
        return Err(WireError::Version);
    }
    Ok(Envelope { version, kind, body })
}

impl Envelope<'_> {
    /// Decodes the body. Bytes after its end are an error, unless the sender is newer and may have added fields.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        if self.version > WIRE_VERSION { Ok(decode_prefix(self.body)?.0) } else { decode(self.body) }
    }
}

fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), WireError> {
    bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|_| WireError::Malformed)
}

const _: () = assert!(MESSAGE_BYTES_MAX <= RECORD_BYTES_MAX, "one limit for both");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_from_a_newer_node_may_have_more_fields() {
        let newer = encode(&(WIRE_VERSION + 1, 7_u16, encode(&(5_u8, 6_u8))));
        assert_eq!(open(&newer, 100).and_then(|envelope| envelope.read::<u8>()), Ok(5));
        let same = encode(&(WIRE_VERSION, 7_u16, encode(&(5_u8, 6_u8))));
        assert_eq!(open(&same, 100).and_then(|envelope| envelope.read::<u8>()), Err(WireError::Trailing));
    }

    #[test]
    fn a_length_that_lies_is_refused_without_allocating_it() {
        let mut bytes = encode(&(WIRE_VERSION, 7_u16));
        bytes.extend([253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(open(&bytes, 100), Err(WireError::Malformed));
        assert_eq!(open(&bytes, 5), Err(WireError::Length));
        assert_eq!(open(&encode(&(0_u16, 1_u16, [0_u8; 0])), 100), Err(WireError::Malformed));
    }
}
