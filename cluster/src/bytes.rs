//! Bytes: vectors of bytes that are encoded and decoded as a whole, not one by one.
//!
//! For `#[serde(with = "…")]` on a field. The encoded form is the very one of a vector of numbers: the length, then the
//! bytes. Only the time differs.

use alloc::vec::Vec;
use core::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Encodes the bytes.
pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// Decodes bytes of any length that there is.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    deserializer.deserialize_byte_buf(Bytes)
}

/// The same for bytes that may be absent.
pub mod optional {
    use super::{Deserialize, Deserializer, Owned, Serialize, Serializer, Slice, Vec};

    /// Encodes the bytes, if there are any.
    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(Slice).serialize(serializer)
    }

    /// Decodes bytes, or that there are none.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Owned>::deserialize(deserializer)?.map(|Owned(bytes)| bytes))
    }
}

/// Bytes to encode.
pub(crate) struct Slice<'a>(pub(crate) &'a [u8]);

struct Owned(Vec<u8>);
struct Bytes;

impl Serialize for Slice<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Owned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Self)
    }
}

impl Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::wire;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Whole(#[serde(with = "super")] Vec<u8>, #[serde(with = "super::optional")] Option<Vec<u8>>);

    #[test]
    fn bytes_are_encoded_as_a_vector_of_numbers_is() {
        for (one, other) in [(vec![], None), (vec![7], Some(vec![])), (vec![9; 300], Some(vec![251; 70_000]))] {
            let plain = wire::encode(&(one.clone(), other.clone()));
            assert_eq!(wire::encode(&Whole(one.clone(), other.clone())), plain);
            assert_eq!(wire::decode(&plain), Ok(Whole(one.clone(), other)));
            assert!(wire::decode::<Whole>(&plain[..plain.len() - 1]).is_err());
        }
    }
}
