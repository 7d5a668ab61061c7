//! Tar streams: entries one after the other, with everything that an entry can make us remember bounded.
//!
//! Input: any reader. Output: [`Entry`] values and their bodies. The `tar` crate decodes the header fields; the walk is
//! ours because that crate reads extended headers of any length into memory and cuts binary attributes at line ends.
//! Knows nothing of images or of where entries go.

mod header;

use std::io::{self, Read};

use tar::Header;

use header::{Extensions, field};

const BLOCK_BYTES: u64 = 512;
/// Extended headers in front of one entry. Writers use at most three.
const EXTENSIONS_MAX: u32 = 16;

/// Why a tar stream could not be read on. The stream must be dropped.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The source failed, or its compression is broken.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The stream ends inside an entry.
    #[error("the archive is truncated: it ends inside {inside}")]
    Truncated {
        /// What was being read.
        inside: String,
    },
    /// The first block is no tar header.
    #[error("not a tar archive")]
    NotTar,
    /// A header does not follow the format.
    #[error("broken tar header at byte {position}: {reason}")]
    Header {
        /// Where the header begins, counted after decompression.
        position: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More entries than allowed.
    #[error("the archive has more than {max} entries")]
    Entries {
        /// The bound.
        max: u64,
    },
    /// The stream is longer than allowed after decompression, or declares to be.
    #[error("the archive holds or declares more than {max} bytes")]
    Size {
        /// The bound.
        max: u64,
    },
    /// The extended headers of one entry are longer than allowed.
    #[error("the extended header at byte {position} is longer than {max} bytes")]
    Extension {
        /// Where the header begins, counted after decompression.
        position: u64,
        /// The bound.
        max: u64,
    },
    /// A path or link target is longer than allowed.
    #[error("an archive entry has a path of {bytes} bytes, at most {max} are allowed")]
    Path {
        /// How long it is.
        bytes: usize,
        /// The bound.
        max: u64,
    },
    /// A kind of entry that images do not use, as sparse files and parts of multi-volume archives.
    #[error("entry {path:?} has the unsupported type {kind:?}")]
    Kind {
        /// The entry's path.
        path: String,
        /// The type byte of its header.
        kind: char,
    },
}

/// Bounds of one stream, taken from [`super::Limits`].
#[derive(Clone, Copy, Debug)]
pub(super) struct TarLimits {
    pub(super) entries_max: u64,
    pub(super) bytes_max: u64,
    pub(super) path_bytes_max: u64,
    pub(super) extension_bytes_max: u64,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// One entry's description. `path` and `link` are as written: nothing is checked but their length and that they hold
/// no NUL.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) link: Vec<u8>,
    pub(super) size_bytes: u64,
    /// Permission bits, at most `0o7777`.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime_s: i64,
    pub(super) mtime_ns: u32,
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// The path for messages, shortened.
    pub(super) fn shown_path(&self) -> String {
        shown(&self.path)
    }
}

/// Bytes from a stranger as text for a message.
pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}

/// Walks a tar stream from front to back.
pub(super) struct TarStream<R> {
    inner: R,
    limits: TarLimits,
    position: u64,
    entries: u64,
    /// Bytes of the current entry's body, then of its padding, that were not read yet.
    body_left: u64,
    padding_left: u64,
    current: String,
}

impl<R: Read> TarStream<R> {
    pub(super) fn new(inner: R, limits: TarLimits) -> Self {
        Self { inner, limits, position: 0, entries: 0, body_left: 0, padding_left: 0, current: String::new() }
    }

    /// Returns the next entry, or `None` at the end. What was left of the previous body is skipped.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_body()?;
            let begin = self.position;
            let Some(header) = self.read_header()? else {
                if extensions.count > 0 {
                    return Err(TarError::Truncated { inside: "an extended header".into() });
                }
                return Ok(None);
            };
            let broken = |reason| TarError::Header { position: begin, reason };
            let size = field(&header.as_old().size, header.entry_size());
            let size = size.ok_or_else(|| broken("the size is not a number"))?;
            match header.entry_type().as_byte() {
                kind @ (b'x' | b'L' | b'K') => {
                    let body = self.read_extension(begin, size, &mut extensions)?;
                    extensions.take(kind, body).map_err(broken)?;
                }
                b'g' => {
                    self.count_entry()?;
                    self.begin_body(size, "a global extended header".into())?;
                }
                _ => {
                    self.count_entry()?;
                    let entry = extensions.apply(&header, size, &self.limits, broken)?;
                    self.begin_body(entry.size_bytes, entry.shown_path())?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Returns the rest of the current entry's body.
    pub(super) fn body(&mut self) -> Body<'_, R> {
        Body { stream: self }
    }

    /// Gives the reader back, for whatever follows the end of the archive.
    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    fn count_entry(&mut self) -> Result<(), TarError> {
        self.entries += 1;
        if self.entries > self.limits.entries_max {
            return Err(TarError::Entries { max: self.limits.entries_max });
        }
        Ok(())
    }

    fn begin_body(&mut self, size: u64, path: String) -> Result<(), TarError> {
        let max = self.limits.bytes_max;
        let end = self.position.checked_add(size).and_then(|end| end.checked_next_multiple_of(BLOCK_BYTES));
        if end.is_none_or(|end| end > max) {
            return Err(TarError::Size { max });
        }
        self.body_left = size;
        self.padding_left = size.next_multiple_of(BLOCK_BYTES) - size;
        self.current = path;
        Ok(())
    }

    fn skip_body(&mut self) -> Result<(), TarError> {
        let mut scratch = [0u8; 16 << 10];
        while self.body_left + self.padding_left > 0 {
            let want = (self.body_left + self.padding_left).min(scratch.len() as u64) as usize;
            let count = self.read_some(&mut scratch[..want])?;
            if count == 0 {
                return Err(TarError::Truncated { inside: self.current.clone() });
            }
            let body = self.body_left.min(count as u64);
            self.body_left -= body;
            self.padding_left -= count as u64 - body;
        }
        Ok(())
    }

    /// Reads one header block. `None` at a clean end: no more bytes, or a block of zeros.
    fn read_header(&mut self) -> Result<Option<Header>, TarError> {
        let begin = self.position;
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < block.len() {
            match self.read_some(&mut block[filled..])? {
                0 if filled == 0 && begin > 0 => return Ok(None),
                0 if begin == 0 => return Err(TarError::NotTar),
                0 => return Err(TarError::Truncated { inside: "a header".into() }),
                count => filled += count,
            }
        }
        if self.position > self.limits.bytes_max {
            return Err(TarError::Size { max: self.limits.bytes_max });
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if header.cksum().ok() != Some(checksum(&header)) {
            return Err(match begin {
                0 => TarError::NotTar,
                position => TarError::Header { position, reason: "the checksum does not match" },
            });
        }
        Ok(Some(header))
    }

    fn read_extension(&mut self, begin: u64, size: u64, extensions: &mut Extensions) -> Result<Vec<u8>, TarError> {
        let max = self.limits.extension_bytes_max;
        extensions.count += 1;
        extensions.bytes = extensions.bytes.saturating_add(size);
        if extensions.bytes > max || extensions.count > EXTENSIONS_MAX {
            return Err(TarError::Extension { position: begin, max });
        }
        self.begin_body(size, "an extended header".into())?;
        let mut bytes = Vec::new();
        match self.body().read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.body_error(error)),
        }
    }

    /// Translates an error that came out of reading [`TarStream::body`].
    pub(super) fn body_error(&self, error: io::Error) -> TarError {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            TarError::Truncated { inside: self.current.clone() }
        } else {
            TarError::Read(error)
        }
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        loop {
            match self.inner.read(buffer) {
                Ok(count) => {
                    self.position += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(TarError::Truncated { inside: "its compressed data".into() });
                }
                Err(error) => return Err(TarError::Read(error)),
            }
        }
    }
}

/// The body of the current entry. Ends with `UnexpectedEof` if the archive is shorter than the entry declares.
pub(super) struct Body<'a, R> {
    stream: &'a mut TarStream<R>,
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = self.stream.body_left.min(buffer.len() as u64) as usize;
        if want == 0 {
            return Ok(0);
        }
        let count = self.stream.inner.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.stream.position += count as u64;
        self.stream.body_left -= count as u64;
        Ok(count)
    }
}

fn checksum(header: &Header) -> u32 {
    let bytes = header.as_bytes();
    let sum = |part: &[u8]| part.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    // The checksum's own field counts as eight spaces.
    sum(&bytes[..148]) + 8 * 32 + sum(&bytes[156..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TarLimits =
        TarLimits { entries_max: 10, bytes_max: 1 << 20, path_bytes_max: 300, extension_bytes_max: 4096 };

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn file(builder: &mut tar::Builder<Vec<u8>>, path: &str, body: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, body).unwrap();
    }

    fn walk(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
        let mut stream = TarStream::new(bytes, LIMITS);
        let mut entries = Vec::new();
        while let Some(entry) = stream.next_entry()? {
            let mut body = Vec::new();
            if let Err(error) = stream.body().read_to_end(&mut body) {
                return Err(stream.body_error(error));
            }
            entries.push((entry, body));
        }
        Ok(entries)
    }

    #[test]
    fn long_names_and_binary_attributes_survive() {
        let long = format!("d/{}", "n".repeat(200));
        let bytes = archive(|builder| {
            file(builder, &long, b"one");
            builder
                .append_pax_extensions([
                    ("SCHILY.xattr.user.a", &b"x\ny=\0z"[..]),
                    ("mtime", b"-1.25"),
                    ("uid", b"70000"),
                ])
                .unwrap();
            file(builder, "b", &[7; 1000]);
        });
        let entries = walk(&bytes).unwrap();
        assert_eq!(entries[0].0.path, long.as_bytes());
        assert_eq!(entries[0].1, b"one");
        assert!(entries[0].0.xattrs.is_empty());
        let second = &entries[1].0;
        assert_eq!(second.xattrs, [(b"user.a".to_vec(), b"x\ny=\0z".to_vec())]);
        assert_eq!((second.mtime_s, second.mtime_ns, second.uid), (-2, 750_000_000, 70_000));
        assert_eq!(entries[1].1, [7; 1000]);
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_archive() {
        let bytes = archive(|builder| {
            file(builder, &"n".repeat(150), b"one");
            file(builder, "b", &[7; 1000]);
        });
        for end in 0..bytes.len() {
            match walk(&bytes[..end]) {
                // One of the two blocks at the end is enough.
                Ok(entries) => {
                    assert!(end % 512 == 0 || (end > bytes.len() - 512 && entries.len() == 2), "{end}");
                }
                Err(TarError::NotTar) => assert!(end < 512),
                Err(TarError::Truncated { .. }) => {}
                Err(error) => panic!("{end}: {error}"),
            }
        }
    }

    #[test]
    fn absurd_claims_are_refused_before_they_cost_anything() {
        let huge = archive(|builder| {
            let mut header = Header::new_gnu();
            header.set_path("x").unwrap();
            header.set_size(u64::MAX - 3);
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
        });
        assert!(matches!(walk(&huge), Err(TarError::Size { .. })));
        let many = archive(|builder| (0..11).for_each(|_| file(builder, "x", b"")));
        assert!(matches!(walk(&many), Err(TarError::Entries { max: 10 })));
        let extension = archive(|builder| {
            builder.append_pax_extensions([("comment", &[b'c'; 5000][..])]).unwrap();
            file(builder, "x", b"");
        });
        assert!(matches!(walk(&extension), Err(TarError::Extension { .. })));
        let path = archive(|builder| file(builder, &"p".repeat(301), b""));
        assert!(matches!(walk(&path), Err(TarError::Path { .. })));
        let size = archive(|builder| {
            builder.append_pax_extensions([("size", &b"99999999999999"[..])]).unwrap();
            file(builder, "x", b"");
        });
        assert!(matches!(walk(&size), Err(TarError::Size { .. })));
        assert!(matches!(walk(b"hello"), Err(TarError::NotTar)));
        assert!(matches!(walk(&[b'a'; 2000]), Err(TarError::NotTar)));
    }
}
