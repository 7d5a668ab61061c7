//! The keys by which an operator lets go of a terminal and leaves what runs in it alone. Docker's: ctrl-p, ctrl-q.
//!
//! Input: what was typed. Output: what of it is for the terminal, and whether the keys were among it. A beginning of them is
//! held back until it is known to be one or not.

use crate::api::error::{ApiError, shown};

/// What is meant where a client says nothing.
const DEFAULT: &str = "ctrl-p,ctrl-q";
/// Most keys.
const KEYS_MAX: usize = 16;

/// The keys, and how many of them were just typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detach {
    keys: Vec<u8>,
    typed: usize,
}

impl Detach {
    /// Reads what a client asks for: characters and `ctrl-X`, with commas between them.
    pub(in crate::api) fn read(text: Option<&str>) -> Result<Self, ApiError> {
        let text = text.filter(|text| !text.is_empty()).unwrap_or(DEFAULT);
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        match keys.filter(|keys| keys.len() <= KEYS_MAX) {
            Some(keys) => Ok(Self { keys, typed: 0 }),
            None => Err(ApiError::BadRequest(format!(
                "Invalid escape keys ({}) provided: name characters, and control keys as ctrl-X, with commas between them, at \
                 most {KEYS_MAX}",
                shown(text)
            ))),
        }
    }

    /// Returns what goes to the terminal, and whether the keys are complete; what follows them is dropped.
    pub(super) fn pass(&mut self, piece: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(piece.len());
        for byte in piece {
            if self.typed > 0 && self.keys[self.typed] != *byte {
                out.extend_from_slice(&self.keys[..self.typed]);
                self.typed = 0;
            }
            match self.keys[self.typed] == *byte {
                true => self.typed += 1,
                false => out.push(*byte),
            }
            if self.typed == self.keys.len() {
                return (out, true);
            }
        }
        (out, false)
    }
}

fn key(text: &str) -> Option<u8> {
    match (text.strip_prefix("ctrl-"), text.as_bytes()) {
        (Some(name), _) => match name.as_bytes() {
            [letter @ (b'a'..=b'z' | b'@' | b'['..=b'_')] => Some(letter.to_ascii_uppercase() & 0x1f),
            _ => None,
        },
        (None, [byte]) if byte.is_ascii() => Some(*byte),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_across_pieces_and_their_beginnings_are_given_back() {
        let mut detach = Detach::read(None).unwrap();
        assert_eq!(detach.pass(b"a\x10b"), (b"a\x10b".to_vec(), false), "one of the two is typing");
        assert_eq!(detach.pass(b"\x10"), (Vec::new(), false));
        assert_eq!(detach.pass(b"\x10"), (b"\x10".to_vec(), false));
        assert_eq!(detach.pass(b"\x11after"), (Vec::new(), true));
        let mut word = Detach::read(Some("q,ctrl-[,ctrl-@")).unwrap();
        assert_eq!(word.pass(b"qq\x1b\0"), (b"q".to_vec(), true));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in ["ctrl-", "ctrl-1", "ctrl-ab", "ab", ",", "a,", "ü", "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a"] {
            assert!(Detach::read(Some(bad)).is_err(), "{bad}");
        }
        assert_eq!(Detach::read(Some("")).unwrap(), Detach::read(None).unwrap());
    }
}
