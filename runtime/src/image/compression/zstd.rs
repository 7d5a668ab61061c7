//! Zstandard: the frames of a stream one after the other.
//!
//! Tools that make layers seekable (`zstd:chunked`) write many frames, and some that are to be skipped (RFC 8878 §3.1).
//! Memory is bounded by the window, which a stream declares and we limit.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Largest window that is accepted: what the `zstd` command accepts unless told otherwise, enough for its level 22.
const WINDOW_BYTES_MAX: u64 = 128 << 20;

/// The plain bytes of all frames.
pub(in crate::image) struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    /// Whether a frame was begun whose end has not been checked.
    inside: bool,
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW_BYTES_MAX);
        Self { source, decoder, inside: false }
    }

    /// Begins the next frame; tells whether there is one.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.at_end()? {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.inside = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(false)
    }

    /// Decodes the next part of a frame, or checks its end. Tells whether the frame goes on.
    fn advance(&mut self) -> io::Result<()> {
        if !self.decoder.is_finished() {
            let decoded = self.decoder.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1));
            return decoded.map(drop).map_err(|error| self.broken(error));
        }
        self.inside = false;
        let told = self.decoder.get_checksum_from_data();
        if told.is_some() && told != self.decoder.get_calculated_checksum() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a zstd frame has a wrong checksum"));
        }
        Ok(())
    }

    fn at_end(&mut self) -> io::Result<bool> {
        loop {
            match self.source.fill_buf() {
                Ok(rest) => return Ok(rest.is_empty()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The decoder does not tell a short stream from a broken one, but a short one has nothing left.
    fn broken(&mut self, error: FrameDecoderError) -> io::Error {
        match self.at_end() {
            Ok(true) => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            Ok(false) | Err(_) => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.inside {
                self.advance()?;
            } else if !self.next_frame()? {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn plain(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Frames::new(packed).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn frame(text: &[u8]) -> Vec<u8> {
        compress_to_vec(text, CompressionLevel::Fastest)
    }

    #[test]
    fn frames_follow_each_other_and_some_are_skipped() {
        let text = b"the quick brown fox ".repeat(50_000);
        let skipped = [&0x184D_2A50_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc"].concat();
        let packed = [&skipped[..], &frame(&text), &skipped, &frame(b"second"), &frame(b""), &skipped].concat();
        assert_eq!(plain(&packed).unwrap(), [&text[..], b"second"].concat());
    }

    #[test]
    fn what_is_short_or_broken_is_an_error_and_never_a_panic() {
        let packed = frame(&b"the quick brown fox ".repeat(1_000));
        for end in 1..packed.len() {
            assert_eq!(plain(&packed[..end]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{end}");
        }
        for at in 0..packed.len() {
            let mut changed = packed.clone();
            changed[at] ^= 0x55;
            let _ = plain(&changed);
        }
        assert!(plain(&[&packed[..], b"trailer of another kind"].concat()).is_err());
    }

    #[test]
    fn a_window_of_gigabytes_is_refused_before_it_is_made() {
        // A frame header without a size: magic number, descriptor 0, window descriptor of 2^41 bytes.
        let error = plain(&[0x28, 0xb5, 0x2f, 0xfd, 0, 31 << 3, 1, 0, 0]).unwrap_err();
        assert!(error.to_string().contains("indow"), "{error}");
    }
}
