//! Digests: `sha256:` and 64 hexadecimal digits, encoded as the 32 bytes that they are; any other text as it is.
//!
//! For `#[serde(with = "…")]` on a field.

use alloc::string::String;
use core::fmt::Write;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
enum Packed {
    Absent,
    Sha256([u8; 32]),
    Other(String),
}

pub(super) fn serialize<S: Serializer>(digest: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let packed = match digest {
        None => Packed::Absent,
        Some(text) => sha256(text).map_or_else(|| Packed::Other(text.clone()), Packed::Sha256),
    };
    packed.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Packed::deserialize(deserializer)? {
        Packed::Absent => None,
        Packed::Other(text) => Some(text),
        Packed::Sha256(bytes) => {
            let mut text = String::from(PREFIX);
            for byte in bytes {
                write!(text, "{byte:02x}").expect("a string takes any text");
            }
            Some(text)
        }
    })
}

const PREFIX: &str = "sha256:";

fn sha256(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(PREFIX)?.as_bytes();
    let value = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let pairs: &[[u8; 2]; 32] = pairs.try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = value(high)? << 4 | value(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use crate::intent::service::ImageRef;
    use crate::wire;

    #[test]
    fn a_digest_takes_its_bytes_and_any_text_comes_again() {
        let digits = "0123456789abcdef".repeat(4);
        let other = [&digits[1..], &digits.to_uppercase(), "é", "", &format!("{digits}00")]
            .map(|digits| format!("sha256:{digits}"));
        for digest in other.into_iter().chain(["sha512:ab".into()]).map(Some).chain([None]) {
            let image = ImageRef { reference: "web".into(), digest };
            assert_eq!(wire::decode(&wire::encode(&image)), Ok(image));
        }
        let image = ImageRef { reference: String::new(), digest: Some(format!("sha256:{digits}")) };
        let encoded = wire::encode(&image);
        assert_eq!(encoded.len(), 1 + 1 + 32);
        assert_eq!(wire::decode(&encoded), Ok(image));
    }
}
