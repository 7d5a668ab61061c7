//! Read-ahead: a stream is decompressed on a thread of its own while what came before is hashed and written.
//!
//! Input: a reader that costs processor time. Output: the same bytes, errors and end. A few chunks are on their way at
//! any time, and their memory is used again. A thread that panics is an error, never an early end.

use std::{
    io::{self, Read},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread,
};

/// Large enough that handing one over costs nothing beside what is in it, small enough to stay in a processor's cache.
const CHUNK_BYTES: usize = 128 << 10;
/// Chunks that wait, beside the one that is being filled and the one that is being read.
const CHUNKS_WAITING_MAX: usize = 4;

/// Reads what a thread reads.
pub(super) struct ReadAhead {
    /// Empty at the end; without an end before the thread is gone, it has panicked.
    chunks: Receiver<io::Result<Vec<u8>>>,
    spent: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    ended: bool,
}

impl ReadAhead {
    /// Starts the thread, which ends with the stream, or at its next chunk when this is dropped.
    pub(super) fn new(source: impl Read + Send + 'static) -> io::Result<Self> {
        let (filled, chunks) = sync_channel(CHUNKS_WAITING_MAX);
        let (spent, empty) = channel();
        thread::Builder::new().name("shoal-unpack".to_owned()).spawn(move || fill(source, &filled, &empty))?;
        Ok(Self { chunks, spent, current: Vec::new(), position: 0, ended: false })
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let panicked = || io::Error::other("the thread that decompresses has panicked");
        let next = self.chunks.recv().map_err(|_| panicked())??;
        self.ended = next.is_empty();
        self.position = 0;
        // The thread may be done and gone.
        let _ = self.spent.send(std::mem::replace(&mut self.current, next));
        Ok(())
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() && !self.ended {
            self.next_chunk()?;
        }
        let rest = &self.current[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}

fn fill(mut source: impl Read, filled: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) {
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        chunk.resize(CHUNK_BYTES, 0);
        let (count, failed) = fill_chunk(&mut source, &mut chunk);
        chunk.truncate(count);
        let ended = count == 0 || failed.is_some();
        if (count > 0 || failed.is_none()) && filled.send(Ok(chunk)).is_err() {
            return;
        }
        if let Some(error) = failed {
            // Nobody to tell if the reader has given up.
            let _ = filled.send(Err(error));
        }
        if ended {
            return;
        }
    }
}

/// Reads until the chunk is full or the stream has no more. An error counts after the bytes before it.
fn fill_chunk(source: &mut impl Read, chunk: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut count = 0;
    while count < chunk.len() {
        match source.read(&mut chunk[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (count, Some(error)),
        }
    }
    (count, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: impl Read + Send + 'static) -> (Vec<u8>, Option<io::ErrorKind>) {
        let mut bytes = Vec::new();
        let end = ReadAhead::new(source).unwrap().read_to_end(&mut bytes);
        (bytes, end.err().map(|error| error.kind()))
    }

    struct Failing(usize, bool);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                assert!(!self.1, "as told");
                return Err(io::ErrorKind::InvalidData.into());
            }
            let count = self.0.min(buffer.len()).min(1000);
            self.0 -= count;
            buffer[..count].fill(7);
            Ok(count)
        }
    }

    #[test]
    fn bytes_come_whole_and_errors_after_them() {
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES * 9 + 1] {
            assert_eq!(read(io::Cursor::new(vec![7; length])), (vec![7; length], None), "{length}");
            let failed = read(Failing(length, false));
            assert_eq!(failed, (vec![7; length], Some(io::ErrorKind::InvalidData)), "{length}");
        }
    }

    #[test]
    fn a_panic_is_an_error_and_no_end() {
        assert_eq!(read(Failing(CHUNK_BYTES, true)), (vec![7; CHUNK_BYTES], Some(io::ErrorKind::Other)));
    }

    #[test]
    fn a_reader_that_gives_up_lets_the_thread_go() {
        let (sender, receiver) = channel::<()>();
        struct Endless(#[expect(dead_code, reason = "dropped with the thread")] Sender<()>);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                Ok(buffer.len())
            }
        }
        drop(ReadAhead::new(Endless(sender)).unwrap());
        assert!(receiver.recv().is_err());
    }
}
