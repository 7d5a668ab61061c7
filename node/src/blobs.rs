//! Blobs between nodes: any node that has a piece of an image serves it to the others, by digest.
//!
//! Input: a digest and an offset. Output: the bytes from there on, as a stream; nothing is held in memory as a whole.
//! A blob that is still coming is served as far as it is there, and on as it comes.
//! Who fetches must check the digest: a peer of this shoal is trusted to gossip, not to have good disks.
//!
//! On the wire, one stream each: digest length (u16), digest, offset (u64); then status (u8), length of the whole
//! blob (u64), and the bytes from the offset to the end. Numbers are big-endian.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncRead as _, AsyncReadExt, AsyncWriteExt};
use libp2p::Stream;
use shoal_cluster::id::NodeId;
use shoal_runtime::image::Growing;
use tokio::io::ReadBuf;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::transport::Transport;

/// Longest digest text, in bytes; `sha256:` and 64 digits are 71.
const DIGEST_BYTES_MAX: usize = 255;
/// Blobs served at a time.
const SERVES_MAX: usize = 16;
/// Requests that wait for one of those; more are turned away.
const WAITING_MAX: usize = 64;
/// Bytes read from disk at a time.
const CHUNK_BYTES: usize = 128 << 10;
/// Time for the request, for the answer, and for each chunk.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

const FOUND: u8 = 0;
const NOT_FOUND: u8 = 1;
const BUSY: u8 = 2;
const FAILED: u8 = 3;

/// Why a blob was not fetched from this peer; another may have it.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The peer does not have it.
    #[error("node {from} does not have blob {digest}")]
    NotFound {
        /// Who was asked.
        from: NodeId,
        /// What for.
        digest: String,
    },
    /// The peer serves as many blobs as it can; ask again later, or somebody else.
    #[error("node {from} serves too many blobs at the moment")]
    Busy {
        /// Who was asked.
        from: NodeId,
    },
    /// The peer has it but cannot read it, or the offset is behind its end.
    #[error("node {from} cannot serve blob {digest} from byte {offset}")]
    Failed {
        /// Who was asked.
        from: NodeId,
        /// What for.
        digest: String,
        /// From which byte on.
        offset: u64,
    },
    /// The digest is too long to be one.
    #[error("{digest:.80} is not a digest")]
    NotADigest {
        /// What was asked for.
        digest: String,
    },
    /// The peer cannot be reached, or the connection broke.
    #[error("cannot fetch from node {from}: {source}")]
    Io {
        /// Who was asked.
        from: NodeId,
        /// What the transport said.
        source: io::Error,
    },
}

/// Finds blobs that this node has. Called on a blocking thread.
pub trait BlobSource: Send + Sync + 'static {
    /// Opens the blob with this digest, which comes from a peer and may be any text.
    fn open(&self, digest: &str) -> Option<Served>;
}

impl<F: Fn(&str) -> Option<Served> + Send + Sync + 'static> BlobSource for F {
    fn open(&self, digest: &str) -> Option<Served> {
        self(digest)
    }
}

/// A blob that is served: whole, or as far as it has come and on as it comes.
#[derive(Clone, Debug)]
pub struct Served {
    file: Arc<File>,
    bytes: u64,
    /// How many bytes are there; absent if all are.
    written: Option<watch::Receiver<u64>>,
}

impl From<(File, u64)> for Served {
    fn from((file, bytes): (File, u64)) -> Self {
        Self { file: Arc::new(file), bytes, written: None }
    }
}

impl From<Growing> for Served {
    fn from(growing: Growing) -> Self {
        Self { file: growing.file, bytes: growing.bytes, written: Some(growing.written) }
    }
}

impl Served {
    /// Waits until there is a byte at `offset`; fails if it will never come.
    async fn reach(&mut self, offset: u64) -> io::Result<u64> {
        let Some(written) = &mut self.written else { return Ok(self.bytes) };
        let reached = timeout(STEP_TIMEOUT, written.wait_for(|written| *written > offset)).await?;
        // Otherwise the writer is gone before it wrote so far.
        reached.map(|written| *written).map_err(|_| io::ErrorKind::UnexpectedEof.into())
    }
}

/// A blob on its way from a peer. Reading it fails if the connection breaks before its end.
pub struct Blob {
    stream: Stream,
    /// Bytes that are still to come.
    left: u64,
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob").field("left", &self.left).finish_non_exhaustive()
    }
}

impl tokio::io::AsyncRead for Blob {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.remaining());
        if wanted == 0 {
            return Poll::Ready(Ok(()));
        }
        let space = &mut buffer.initialize_unfilled()[..wanted];
        match Pin::new(&mut self.stream).poll_read(cx, space) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(read)) => {
                buffer.advance(read);
                self.left -= read as u64;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Blob {
    /// Returns how many bytes are still to come.
    pub fn left_bytes(&self) -> u64 {
        self.left
    }
}

impl Transport {
    /// Fetches a blob from a peer, from byte `offset` on, connecting first where necessary.
    pub async fn fetch_blob(&self, from: NodeId, digest: &str, offset: u64) -> Result<Blob, BlobError> {
        let too_long = |_| BlobError::NotADigest { digest: digest.to_owned() };
        let length = u8::try_from(digest.len()).map_err(too_long)?;
        let failed = |source| BlobError::Io { from, source };
        let mut stream = self.open_blob_stream(from).await.map_err(failed)?;
        let request = [&u16::from(length).to_be_bytes(), digest.as_bytes(), &offset.to_be_bytes()].concat();
        let answered = timeout(STEP_TIMEOUT, ask(&mut stream, &request)).await;
        let (status, length) = answered.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
        match status {
            FOUND if offset <= length => Ok(Blob { stream, left: length - offset }),
            NOT_FOUND => Err(BlobError::NotFound { from, digest: digest.to_owned() }),
            BUSY => Err(BlobError::Busy { from }),
            _ => Err(BlobError::Failed { from, digest: digest.to_owned(), offset }),
        }
    }

    /// Serves blobs to peers until the transport ends.
    pub fn serve_blobs(&self, source: Arc<dyn BlobSource>) {
        let mut streams = self.accept_blob_streams(WAITING_MAX);
        tokio::spawn(async move {
            let slots = Arc::new(Semaphore::new(SERVES_MAX));
            let mut serves = JoinSet::new();
            while let Some((to, stream)) = streams.recv().await {
                while serves.try_join_next().is_some() {}
                let slot = slots.clone().try_acquire_owned().ok();
                if slot.is_none() && serves.len() >= SERVES_MAX + WAITING_MAX {
                    continue;
                }
                let source = source.clone();
                serves.spawn(async move {
                    if let Err(error) = serve(stream, source, slot.is_some()).await {
                        debug!(node = %to, %error, "a blob was not served to its end");
                    }
                    drop(slot);
                });
            }
        });
    }
}

async fn ask(stream: &mut Stream, request: &[u8]) -> io::Result<(u8, u64)> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).await?;
    let [status, length @ ..] = answer;
    Ok((status, u64::from_be_bytes(length)))
}

/// Answers one request; one for which there is no slot is told so.
async fn serve(mut stream: Stream, source: Arc<dyn BlobSource>, has_slot: bool) -> io::Result<()> {
    let (digest, offset) = timeout(STEP_TIMEOUT, read_request(&mut stream)).await??;
    if !has_slot {
        return answer(&mut stream, BUSY, 0).await;
    }
    let opened = tokio::task::spawn_blocking(move || {
        let Some(served) = source.open(&digest) else { return Ok(None) };
        if offset > served.bytes { Err(io::Error::from(io::ErrorKind::InvalidInput)) } else { Ok(Some(served)) }
    });
    match opened.await.map_err(io::Error::other)? {
        Ok(Some(served)) => {
            answer(&mut stream, FOUND, served.bytes).await?;
            copy(served, offset, &mut stream).await
        }
        Ok(None) => answer(&mut stream, NOT_FOUND, 0).await,
        Err(error) => {
            warn!(%error, "cannot read a blob that a peer asked for");
            answer(&mut stream, FAILED, 0).await
        }
    }
}

async fn read_request(stream: &mut Stream) -> io::Result<(String, u64)> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > DIGEST_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut digest = vec![0; length];
    stream.read_exact(&mut digest).await?;
    let mut offset = [0; 8];
    stream.read_exact(&mut offset).await?;
    let digest = String::from_utf8(digest).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok((digest, u64::from_be_bytes(offset)))
}

async fn answer(stream: &mut Stream, status: u8, length: u64) -> io::Result<()> {
    timeout(STEP_TIMEOUT, async {
        stream.write_all(&[[status].as_slice(), &length.to_be_bytes()].concat()).await?;
        if status == FOUND { stream.flush().await } else { stream.close().await }
    })
    .await?
}

/// Sends the blob from `offset` on, chunk by chunk, as fast as it is there.
async fn copy(mut served: Served, mut offset: u64, stream: &mut Stream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    while offset < served.bytes {
        let there = served.reach(offset).await?.min(served.bytes) - offset;
        let wanted = usize::try_from(there).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let file = Arc::clone(&served.file);
        let read = tokio::task::spawn_blocking(move || {
            let read = file.read_at(&mut chunk[..wanted], offset);
            (chunk, read)
        });
        let (buffer, read) = read.await.map_err(io::Error::other)?;
        let read = read?;
        chunk = buffer;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        timeout(STEP_TIMEOUT, stream.write_all(&chunk[..read])).await??;
        offset += read as u64;
    }
    timeout(STEP_TIMEOUT, stream.close()).await?
}
