//! Digest: the name of a blob, which is the hash of its bytes.
//!
//! Only SHA-256 exists here: it is what every image in use has, and one algorithm cannot be downgraded to another.

use std::{
    fmt,
    io::{self, Read, Write},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits. Ordered by its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is an algorithm, but not ours.
    #[error("digest algorithm {0:?} is not supported, only sha256 is")]
    Algorithm(String),
    /// Not of the form `sha256:<64 lower-case hexadecimal digits>`.
    #[error("{0:?} is not a digest, expected sha256: and 64 lower-case hexadecimal digits")]
    Form(String),
}

/// Text in an error is cut here, so that hostile input cannot fill a log.
const SHOWN_CHARS_MAX: usize = 100;

impl Digest {
    /// Returns the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the digest that has these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the 64 hexadecimal digits without the algorithm.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Parses the 64 hexadecimal digits without the algorithm.
    ///
    /// # Errors
    /// [`DigestError::Form`] for anything else.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        let form = || DigestError::Form(text.chars().take(SHOWN_CHARS_MAX).collect());
        if text.len() != 64 {
            return Err(form());
        }
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let (high, low) = (nibble(pair[0]).ok_or_else(form)?, nibble(pair[1]).ok_or_else(form)?);
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text.split_once(':') {
            Some(("sha256", hex)) => Self::from_hex(hex),
            Some((algorithm, _)) if !algorithm.is_empty() => {
                Err(DigestError::Algorithm(algorithm.chars().take(SHOWN_CHARS_MAX).collect()))
            }
            _ => Err(DigestError::Form(text.chars().take(SHOWN_CHARS_MAX).collect())),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a digest of bytes that come in pieces, and counts them.
#[derive(Clone, Default)]
pub struct Hasher {
    state: Sha256,
    bytes: u64,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Hasher {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.state.update(piece);
        self.bytes += piece.len() as u64;
    }

    /// Returns how many bytes were taken.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the digest of everything taken.
    pub fn finish(self) -> Digest {
        Digest(self.state.finalize().into())
    }
}

/// Hashes what is read through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R> HashingReader<R> {
    /// Wraps `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// Returns how many bytes were read.
    pub const fn read_bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    /// Returns the state after all that was read.
    pub fn into_hasher(self) -> Hasher {
        self.hasher
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Hashes what is written through it.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W> HashingWriter<W> {
    /// Wraps `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// Returns the state after all that was written.
    pub fn into_hasher(self) -> Hasher {
        self.hasher
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_back() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest, Digest::of(b""));
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(serde_json::from_str::<Digest>(&serde_json::to_string(&digest).unwrap()).unwrap(), digest);
        let mut hasher = Hasher::default();
        hasher.update(b"ab");
        hasher.update(b"c");
        assert_eq!(hasher.bytes(), 3);
        assert_eq!(hasher.finish(), Digest::of(b"abc"));
    }

    #[test]
    fn what_is_not_a_digest_is_refused() {
        let upper = EMPTY.to_uppercase().replace("SHA256", "sha256");
        for text in ["", "sha256", "sha256:", ":00", &EMPTY[7..], &EMPTY[..70], &format!("{EMPTY}0"), &upper] {
            assert!(matches!(text.parse::<Digest>(), Err(DigestError::Form(_))), "{text}");
        }
        assert_eq!("sha512:00".parse::<Digest>(), Err(DigestError::Algorithm("sha512".into())));
        assert!("sha256:é".repeat(500).parse::<Digest>().unwrap_err().to_string().len() < 1000);
    }
}
