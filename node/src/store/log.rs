//! The bytes of the log: a header, then frames; each frame is one batch that was made durable as a whole.
//!
//! Input: the bytes of a file. Output: the records of its whole frames, where they end, and whether what follows is
//! a torn last write (which nobody was promised) or damage before frames that are whole (which somebody was).
//! The checksum of a frame is salted and bound to its place, so that no record can pass for a frame.

use sha2::{Digest, Sha256};

/// First bytes of every log; the digit is the version of the format.
pub const MAGIC: &[u8; 16] = b"shoal log, v.1\n\0";
/// Length in bytes of the header: magic, salt, owner.
pub const HEADER_BYTES: usize = 16 + SALT_BYTES + 32;
/// Length in bytes of the random salt of each file.
pub const SALT_BYTES: usize = 16;
/// Largest frame, in bytes of payload.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// What a frame adds to its payload, in bytes: mark, length, checksum.
pub const FRAME_OVERHEAD_BYTES: usize = 4 + 4 + CHECK_BYTES;

const FRAME_MARK: &[u8; 4] = b"\xf5shl";
const CHECK_BYTES: usize = 16;

/// What the header of a log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Makes the checksums of this file its own.
    pub salt: [u8; SALT_BYTES],
    /// The shoal whose state this is: the fingerprint of its CA.
    pub owner: [u8; 32],
}

/// The records of a log and where the last whole frame ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Scan {
    /// All records, oldest first.
    pub records: Vec<Vec<u8>>,
    /// Offset in bytes behind the last whole frame; what follows was torn.
    pub end: usize,
}

/// A frame is damaged although frames behind it are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Offset in bytes of the damaged frame.
    pub at: usize,
    /// Offset in bytes of the next whole frame.
    pub next: usize,
}

impl Header {
    /// Returns the header as it is written.
    pub fn encode(&self) -> Vec<u8> {
        [MAGIC.as_slice(), &self.salt, &self.owner].concat()
    }

    /// Reads the header at the start of `bytes`, or nothing if there is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (salt, rest) = rest.split_first_chunk::<SALT_BYTES>()?;
        let (owner, _) = rest.split_first_chunk::<32>()?;
        Some(Self { salt: *salt, owner: *owner })
    }
}

/// Appends one frame with these records to `out`, for a file in which `out` begins at offset `base`.
pub fn encode_frame<R: AsRef<[u8]>>(out: &mut Vec<u8>, base: usize, salt: &[u8; SALT_BYTES], records: &[R]) {
    let start = out.len();
    out.extend_from_slice(FRAME_MARK);
    out.extend_from_slice(&[0; 4 + CHECK_BYTES]);
    for record in records {
        let record = record.as_ref();
        out.extend_from_slice(&(record.len() as u32).to_le_bytes());
        out.extend_from_slice(record);
    }
    let payload = start + FRAME_OVERHEAD_BYTES;
    let check = check(salt, base + start, &out[payload..]);
    let length = (out.len() - payload) as u32;
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    out[start + 8..payload].copy_from_slice(&check);
}

/// Returns the length in bytes that a record takes in a payload.
pub fn record_bytes(record: &[u8]) -> usize {
    4 + record.len()
}

/// Reads all frames behind the header.
pub fn scan(bytes: &[u8], salt: &[u8; SALT_BYTES]) -> Result<Scan, Damage> {
    let mut records = Vec::new();
    let mut end = HEADER_BYTES;
    while end < bytes.len() {
        let Some(payload) = whole_frame(bytes, end, salt) else {
            return match next_whole_frame(bytes, end + 1, salt) {
                Some(next) => Err(Damage { at: end, next }),
                None => Ok(Scan { records, end }),
            };
        };
        split_records(payload, &mut records);
        end += FRAME_OVERHEAD_BYTES + payload.len();
    }
    Ok(Scan { records, end })
}

/// Returns the payload of the frame at `at` if all of it is there and its checksum holds.
fn whole_frame<'a>(bytes: &'a [u8], at: usize, salt: &[u8; SALT_BYTES]) -> Option<&'a [u8]> {
    let rest = bytes.get(at..)?.strip_prefix(FRAME_MARK)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (expected, rest) = rest.split_first_chunk::<CHECK_BYTES>()?;
    let payload = rest.get(..u32::from_le_bytes(*length) as usize)?;
    (check(salt, at, payload) == *expected).then_some(payload)
}

/// Finds the first whole frame at or behind `from`, wherever it begins.
fn next_whole_frame(bytes: &[u8], from: usize, salt: &[u8; SALT_BYTES]) -> Option<usize> {
    (from..bytes.len()).find(|&at| bytes[at] == FRAME_MARK[0] && whole_frame(bytes, at, salt).is_some())
}

/// Adds the records of a payload whose checksum holds. Its lengths are ours, so they fit.
fn split_records(mut payload: &[u8], records: &mut Vec<Vec<u8>>) {
    while let Some((length, rest)) = payload.split_first_chunk::<4>() {
        let length = (u32::from_le_bytes(*length) as usize).min(rest.len());
        let (record, rest) = rest.split_at(length);
        records.push(record.to_vec());
        payload = rest;
    }
}

/// Returns the checksum of a frame: salted, and bound to its offset and length.
fn check(salt: &[u8; SALT_BYTES], at: usize, payload: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = Sha256::new();
    hasher.update(salt);
    hasher.update((at as u64).to_le_bytes());
    hasher.update((payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hasher.finalize()[..CHECK_BYTES]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; SALT_BYTES] = [9; SALT_BYTES];

    fn log_of(batches: &[&[&str]]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Header { salt: SALT, owner: [1; 32] }.encode();
        let mut ends = vec![bytes.len()];
        for batch in batches {
            encode_frame(&mut bytes, 0, &SALT, batch);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    const BATCHES: [&[&str]; 4] = [&["one", ""], &["two", "three", "four"], &["5"], &["six, which is longer"]];

    #[test]
    fn every_truncation_keeps_the_whole_batches_before_it() {
        let (bytes, ends) = log_of(&BATCHES);
        for length in HEADER_BYTES..=bytes.len() {
            let scan = scan(&bytes[..length], &SALT).expect("a truncation is never damage");
            let whole = ends.iter().rposition(|&end| end <= length).expect("the header is whole");
            let expected: Vec<Vec<u8>> =
                BATCHES[..whole].iter().flat_map(|batch| batch.iter().map(|text| text.as_bytes().to_vec())).collect();
            assert_eq!(scan.records, expected, "cut at {length}");
            assert_eq!(scan.end, ends[whole], "cut at {length}");
        }
    }

    #[test]
    fn every_bit_flip_before_the_last_batch_is_reported_as_damage() {
        let (bytes, ends) = log_of(&BATCHES);
        for at in HEADER_BYTES..ends[3] {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let damage = scan(&bytes, &SALT).expect_err("a flipped bit went unnoticed");
                assert!(damage.at <= at && at < damage.next, "{damage:?} for a flip at {at}");
            }
        }
    }

    #[test]
    fn a_garbage_tail_is_torn_and_not_damage() {
        let (mut bytes, ends) = log_of(&BATCHES);
        for tail in [vec![0; 4096], vec![0xf5; 100], FRAME_MARK.repeat(50), b"\xf5shl\xff\xff\xff\xff".to_vec()] {
            bytes.truncate(ends[4]);
            bytes.extend(tail);
            let scan = scan(&bytes, &SALT).expect("garbage behind the end is a torn write");
            assert_eq!((scan.records.len(), scan.end), (7, ends[4]));
        }
    }

    #[test]
    fn a_record_that_looks_like_a_frame_does_not_turn_a_torn_write_into_damage() {
        let (mut bytes, ends) = log_of(&BATCHES);
        let whole = bytes[ends[2]..ends[3]].to_vec();
        encode_frame(&mut bytes, 0, &SALT, &[whole, vec![1; 50]]);
        bytes.truncate(bytes.len() - 20);
        assert_eq!(scan(&bytes, &SALT).expect("torn").end, ends[4]);
    }
}
