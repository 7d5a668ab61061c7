//! Fetching from peers: blobs side by side, each from the best peer there is, going on with another when one fails.
//!
//! Input: the digest of an image. Output: all its blobs in the store, each checked against its digest. What is taken
//! from a node that still fetches is checked at the end like everything else.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::NodeId;
use shoal_runtime::image::progress::{Progress, Step};
use shoal_runtime::image::{BlobWriter, Descriptor, Digest, Held};
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::order::{Order, order};
use super::{Images, chain};
use crate::blobs::BlobError;

/// Blobs of one image that are fetched side by side.
const BLOBS_AT_ONCE: usize = 4;
/// How long a node waits for those ahead of it in line to begin, if others have the image.
const LINE_WAIT: Duration = Duration::from_secs(3);
/// The same if no node has it, so that the first in line asks the registry.
const REGISTRY_WAIT: Duration = Duration::from_secs(20);
/// How long a peer may send nothing before another is asked.
const STALL: Duration = Duration::from_secs(5);
/// How long nothing may come from anybody before the fetch fails. Blobs that came whole stay.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Pause before those that had nothing are asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes that are gathered before they are hashed and written, on a thread that may block.
const BATCH_BYTES: usize = 1 << 20;

/// One blob on its way.
struct Fetch<'a> {
    images: &'a Images,
    image: Digest,
    wanted: Descriptor,
    progress: &'a Arc<Progress>,
    /// Away only while it writes.
    writer: Option<BlobWriter>,
    /// When the last byte came, or the fetch began.
    last: Instant,
    /// Peers whose bytes turned out wrong.
    bad: Vec<NodeId>,
    /// Who sent bytes of the present try.
    senders: Vec<NodeId>,
    reason: String,
}

impl Images {
    /// Fetches all blobs of an image from peers. On failure says what the last peer said.
    pub(super) async fn fetch_from_peers(
        self: &Arc<Self>,
        image: Digest,
        progress: &Arc<Progress>,
    ) -> Result<(), String> {
        let _held = Held::new(&self.store, image);
        loop {
            let store = Arc::clone(&self.store);
            let missing = tokio::task::spawn_blocking(move || store.missing(&image)).await;
            let missing = missing.map_err(|error| error.to_string())?.map_err(|error| chain(&error))?;
            if missing.is_empty() {
                return Ok(());
            }
            let slots = Arc::new(Semaphore::new(BLOBS_AT_ONCE));
            let mut fetches = JoinSet::new();
            for wanted in missing {
                progress(Step::Wanted(wanted.digest));
                let (images, progress, slots) = (Arc::clone(self), Arc::clone(progress), Arc::clone(&slots));
                fetches.spawn(async move {
                    // Never closed.
                    let _slot = slots.acquire().await;
                    images.fetch_blob(image, wanted, &progress).await
                });
            }
            while let Some(fetched) = fetches.join_next().await {
                fetched.map_err(|error| error.to_string())??;
            }
        }
    }

    async fn fetch_blob(&self, image: Digest, wanted: Descriptor, progress: &Arc<Progress>) -> Result<(), String> {
        let (bad, senders) = (Vec::new(), Vec::new());
        let reason = "no node that is up has it".to_owned();
        let last = Instant::now();
        let mut fetch = Fetch { images: self, image, wanted, progress, writer: None, last, bad, senders, reason };
        fetch.run().await?;
        progress(Step::Complete(wanted.digest));
        Ok(())
    }
}

impl Fetch<'_> {
    async fn run(&mut self) -> Result<(), String> {
        loop {
            let order = {
                let views = self.images.views.borrow();
                order(&views, self.images.own, &self.image, &self.wanted.digest)
            };
            let waited = self.last.elapsed();
            let line_wait = if order.holders.is_empty() { REGISTRY_WAIT } else { LINE_WAIT };
            let is_alone = order.holders.is_empty() && order.ahead.is_empty();
            if self.try_all(&order, waited >= line_wait || order.ahead.is_empty()).await? {
                return Ok(());
            }
            if is_alone || waited >= line_wait.max(GIVE_UP) {
                return Err(std::mem::take(&mut self.reason));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks those ahead in line, and if that has taken too long all others. Tells whether the blob is here.
    async fn try_all(&mut self, order: &Order, others_too: bool) -> Result<bool, String> {
        let holders = order.holders.iter().filter(|_| others_too);
        // A node that has it without saying so yet is the last hope.
        let connected: Vec<NodeId> = self.images.transport.peers().into_keys().filter(|_| others_too).collect();
        for peer in order.ahead.iter().chain(holders).chain(&connected) {
            if self.bad.contains(peer) || *peer == self.images.own {
                continue;
            }
            match self.take(*peer).await {
                Ok(()) if self.commit().await? => return Ok(true),
                Ok(()) => {}
                Err(error) => self.reason = error,
            }
        }
        Ok(false)
    }

    /// Takes from one peer what is still missing.
    async fn take(&mut self, peer: NodeId) -> Result<(), String> {
        let from = self.writer.as_ref().map_or(0, BlobWriter::written_bytes);
        let digest = self.wanted.digest.to_string();
        let mut blob = self.images.transport.fetch_blob(peer, &digest, from).await.map_err(|error| match error {
            BlobError::Io { .. } | BlobError::NotFound { .. } | BlobError::Busy { .. } => error.to_string(),
            BlobError::Failed { .. } | BlobError::NotADigest { .. } => chain(&error),
        })?;
        let total_bytes = from + blob.left_bytes();
        if total_bytes > self.wanted.size_bytes {
            return Err(format!("node {peer} has {total_bytes} bytes for blob {digest}, which are too many"));
        }
        self.begin(total_bytes)?;
        self.senders.push(peer);
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        loop {
            let read = timeout(STALL, blob.read_buf(&mut batch)).await;
            let ended = match read {
                Ok(Ok(0)) => Some(Ok(())),
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(Err(format!("cannot fetch from node {peer}: {error}"))),
                Err(_) => Some(Err(format!("node {peer} sends nothing"))),
            };
            if ended.is_some() || batch.len() >= BATCH_BYTES / 2 {
                self.write(&mut batch, total_bytes).await?;
            }
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// Makes the writer, unless an earlier peer's bytes are in it, and lets those behind in line read along.
    fn begin(&mut self, total_bytes: u64) -> Result<(), String> {
        if self.writer.is_some() {
            return Ok(());
        }
        let mut writer = self.images.store.writer(self.wanted.digest, total_bytes).map_err(|error| chain(&error))?;
        writer.share().map_err(|error| chain(&error))?;
        self.writer = Some(writer);
        self.senders.clear();
        Ok(())
    }

    async fn write(&mut self, batch: &mut Vec<u8>, total_bytes: u64) -> Result<(), String> {
        if batch.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::replace(batch, Vec::with_capacity(BATCH_BYTES));
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let written = tokio::task::spawn_blocking(move || writer.write_all(&bytes).map(|()| writer)).await;
        let writer = written.map_err(|error| error.to_string())?.map_err(|error| chain(&error))?;
        self.last = Instant::now();
        let done_bytes = writer.written_bytes();
        (self.progress)(Step::Downloading { digest: self.wanted.digest, done_bytes, total_bytes });
        self.writer = Some(writer);
        Ok(())
    }

    /// Checks what came. Wrong bytes are thrown away, and their senders are not asked again.
    async fn commit(&mut self) -> Result<bool, String> {
        let Some(writer) = self.writer.take() else { return Ok(false) };
        let committed = tokio::task::spawn_blocking(move || writer.commit()).await;
        match committed.map_err(|error| error.to_string())? {
            Ok(()) => Ok(true),
            Err(error @ shoal_runtime::image::BlobError::Digest { .. }) => {
                tracing::warn!(digest = %self.wanted.digest, senders = ?self.senders, "peers sent wrong bytes");
                self.reason = chain(&error);
                self.bad.append(&mut self.senders);
                Ok(false)
            }
            Err(error @ shoal_runtime::image::BlobError::Io { .. }) => Err(chain(&error)),
        }
    }
}
