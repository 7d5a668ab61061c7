//! The join token: which shoal to trust, and the secret that shows one was invited.
//!
//! `SHOAL-1-<CA fingerprint>-<secret and check>`, both in lower-case base 32. Input and output: that text.
//! What role a token gives is known only to the shoal: each role has its own secret, as in Docker Swarm.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Length in bytes of a secret.
pub const SECRET_BYTES: usize = 16;
const PREFIX: &str = "SHOAL-1-";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const FINGERPRINT_TEXT: usize = 52;
const CHECK_BYTES: usize = 4;
const SECRET_TEXT: usize = 32;

/// The secret half of a token. Compared in constant time, and never shown by `Debug`.
#[derive(Clone, Copy)]
pub struct Secret(pub(super) [u8; SECRET_BYTES]);

/// A join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the certificate of the CA to trust.
    pub fingerprint: [u8; 32],
    /// Shows that its bearer was invited.
    pub secret: Secret,
}

/// Why a text is not a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not look like one at all.
    #[error("not a join token: it must begin with SHOAL-1-; `shoal up` on a node of the shoal prints the token")]
    NotAToken,
    /// It has the look of another version of tokens.
    #[error("the token is of a version that this shoal does not know; use the same version of shoal on all nodes")]
    Version,
    /// Its end is missing.
    #[error("the token is cut short; copy all of it")]
    CutShort,
    /// It goes on behind its end.
    #[error("the token is too long; copy it alone")]
    TooLong,
    /// A character is wrong.
    #[error("the token has a typing error; copy it rather than typing it")]
    Mistyped,
}

impl Secret {
    /// Makes a new secret from the system's randomness.
    pub fn generate() -> Self {
        Self(super::random())
    }

    /// Returns the bytes, to send them to a shoal that proved to be ours.
    pub(super) fn bytes(&self) -> [u8; SECRET_BYTES] {
        self.0
    }
}

impl From<[u8; SECRET_BYTES]> for Secret {
    fn from(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }
}

impl PartialEq for Secret {
    /// Compares hashes, all bytes of them, so that the time it takes says nothing about the secret.
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (Sha256::digest(self.0), Sha256::digest(other.0));
        let difference = ours.iter().zip(theirs).fold(0, |difference, (a, b)| difference | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut secret = self.secret.0.to_vec();
        secret.extend_from_slice(&self.check());
        write!(f, "{PREFIX}{}-{}", base32(&self.fingerprint), base32(&secret))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix(PREFIX) else {
            return Err(match text.strip_prefix("SHOAL-") {
                Some("" | "1") => TokenError::CutShort,
                Some(_) => TokenError::Version,
                None => TokenError::NotAToken,
            });
        };
        if rest.len() < FINGERPRINT_TEXT + 1 + SECRET_TEXT {
            return Err(TokenError::CutShort);
        }
        if rest.len() > FINGERPRINT_TEXT + 1 + SECRET_TEXT {
            return Err(TokenError::TooLong);
        }
        let (fingerprint, secret) = rest.split_once('-').ok_or(TokenError::Mistyped)?;
        let fingerprint = unbase32(fingerprint).and_then(|bytes| bytes.try_into().ok()).ok_or(TokenError::Mistyped)?;
        let bytes = unbase32(secret).ok_or(TokenError::Mistyped)?;
        let (secret, check) = bytes.split_first_chunk::<SECRET_BYTES>().ok_or(TokenError::Mistyped)?;
        let token = Self { fingerprint, secret: Secret(*secret) };
        if check == token.check() { Ok(token) } else { Err(TokenError::Mistyped) }
    }
}

impl Token {
    fn check(&self) -> [u8; CHECK_BYTES] {
        let digest = Sha256::new().chain_update(PREFIX).chain_update(self.fingerprint).chain_update(self.secret.0);
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&digest.finalize()[..CHECK_BYTES]);
        check
    }
}

/// Returns the bytes in base 32 (RFC 4648 §6) in lower case without padding.
pub(super) fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut bits, mut held) = (0u32, 0u32);
    for &byte in bytes {
        bits = (bits << 8 | u32::from(byte)) & 0xfff;
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(ALPHABET[(bits >> held) as usize & 31]));
        }
    }
    if held > 0 {
        text.push(char::from(ALPHABET[(bits << (5 - held)) as usize & 31]));
    }
    text
}

/// Reads what [`base32`] writes; the bits that fill up the last character must be zero.
fn unbase32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|&character| character == byte)?;
        bits = (bits << 5 | u32::try_from(value).ok()?) & 0xfff;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    (bits & ((1 << held) - 1) == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token { fingerprint: [0xab; 32], secret: Secret::generate() }
    }

    #[test]
    fn a_token_survives_being_written_and_read() {
        let token = token();
        assert_eq!(format!(" {token}\n").parse(), Ok(token));
    }

    #[test]
    fn every_shortening_is_called_cut_short_and_every_slip_is_noticed() {
        let text = token().to_string();
        for length in "SHOAL-1".len()..text.len() {
            assert_eq!(text[..length].parse::<Token>(), Err(TokenError::CutShort), "at {length}");
        }
        for at in PREFIX.len()..text.len() {
            let mut slip = text.clone().into_bytes();
            slip[at] = if slip[at] == b'a' { b'b' } else { b'a' };
            let slip = String::from_utf8(slip).expect("ascii");
            assert_eq!(slip.parse::<Token>(), Err(TokenError::Mistyped), "at {at}");
        }
        assert_eq!(format!("{text}x").parse::<Token>(), Err(TokenError::TooLong));
    }

    #[test]
    fn other_texts_are_named_for_what_they_are() {
        assert_eq!("SWMTKN-1-abc-def".parse::<Token>(), Err(TokenError::NotAToken));
        assert_eq!("".parse::<Token>(), Err(TokenError::NotAToken));
        assert_eq!("SHOAL-2-abc-def".parse::<Token>(), Err(TokenError::Version));
        assert_eq!(format!("SHOAL-1-{}", "ö".repeat(60)).parse::<Token>(), Err(TokenError::TooLong));
    }

    #[test]
    fn a_secret_is_not_shown_by_debug() {
        let token = Token { fingerprint: [0; 32], secret: Secret([0x41; SECRET_BYTES]) };
        assert!(!format!("{token:?}").contains("65"), "{token:?}");
    }
}
