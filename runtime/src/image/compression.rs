//! Compression: finds out how a stream is packed, from its first bytes, and unpacks it.
//!
//! Input: any reader. Output: the plain bytes. Media types are not consulted, they are often wrong. The output is not
//! bounded here: whoever reads it must do that.

mod zstd;

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use zstd::Frames;

const BUFFER_BYTES: usize = 64 << 10;

/// Why a stream cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// Reading the first bytes failed.
    #[error("cannot read the first bytes")]
    Read(#[from] io::Error),
    /// A format that this build cannot read.
    #[error("compressed with {format}, only gzip, zstd and uncompressed are supported; convert it to gzip")]
    Unsupported {
        /// The format's name.
        format: &'static str,
    },
}

/// A stream of plain bytes.
pub(super) enum Decoder<R> {
    Plain(BufReader<R>),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    Zstd(Box<Frames<BufReader<R>>>),
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(inner: R) -> Result<Self, CompressionError> {
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, inner);
        let unsupported = |format| Err(CompressionError::Unsupported { format });
        match fill(&mut reader)? {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(reader)))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Ok(Self::Zstd(Box::new(Frames::new(reader))))
            }
            [0xfd, b'7', b'z', b'X', b'Z', ..] => unsupported("xz"),
            [b'B', b'Z', b'h', ..] => unsupported("bzip2"),
            _ => Ok(Self::Plain(reader)),
        }
    }
}

/// One read is enough for the magic numbers of any real source; one that gives fewer bytes is taken as plain.
fn fill<R: Read>(reader: &mut BufReader<R>) -> io::Result<&[u8]> {
    loop {
        match reader.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(reader.buffer())
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(reader) => reader.read(buffer),
            Self::Zstd(reader) => reader.read(buffer),
        }
    }
}
