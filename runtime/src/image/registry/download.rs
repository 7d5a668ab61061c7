//! Downloads: one blob from a registry to the store, going on where it broke off.

use std::{io::Write, sync::Arc, time::Duration};

use reqwest::{Response, StatusCode, header::CONTENT_RANGE};

use super::{error::RegistryError, session::Session};
use crate::image::{
    digest::Digest,
    document::Descriptor,
    progress::{Progress, Step},
    store::{BlobError, BlobWriter, ImageStore},
};

/// How often in a row a download may break without a byte more than before.
const BREAKS_MAX: u32 = 4;
/// The pause after a break.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes that are gathered before they are hashed and written, on a thread that may block.
const BATCH_BYTES: usize = 1 << 20;

/// Runs what blocks where that is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    tokio::task::spawn_blocking(call).await.map_err(RegistryError::broken)?
}

/// Stores a document whose digest was verified.
pub(super) async fn put(store: &Arc<ImageStore>, digest: Digest, document: &[u8]) -> Result<(), RegistryError> {
    let (store, document) = (Arc::clone(store), document.to_vec());
    blocking(move || {
        let mut writer = store.writer(digest, document.len() as u64)?;
        writer.write_all(&document).map_err(RegistryError::Io)?;
        Ok(writer.commit()?)
    })
    .await
}

/// Fetches one blob.
pub(super) async fn blob(
    session: &Session,
    store: &Arc<ImageStore>,
    wanted: Descriptor,
    progress: &Arc<Progress>,
) -> Result<(), RegistryError> {
    let mut writer = store.writer(wanted.digest, wanted.size_bytes)?;
    writer.share()?;
    let mut download = Download { session, wanted, progress, writer: Some(writer) };
    let mut breaks = 0;
    while let Err(error) = download.go_on(&mut breaks).await {
        breaks += 1;
        if !error.is_transient() || breaks > BREAKS_MAX {
            return Err(error);
        }
        tracing::debug!(digest = %wanted.digest, %error, "a download broke off and goes on");
        tokio::time::sleep(PAUSE).await;
    }
    let writer = download.writer.take();
    let committed = blocking(move || Ok(writer.map(BlobWriter::commit).transpose()?)).await;
    match committed {
        Ok(_) => {}
        Err(RegistryError::Blob(BlobError::Digest { found, .. })) => {
            let what = session.what(&format!("blobs/{}", wanted.digest));
            return Err(RegistryError::Digest { host: session.host().to_owned(), what, found });
        }
        Err(error) => return Err(error),
    }
    progress(Step::Complete(wanted.digest));
    Ok(())
}

struct Download<'a> {
    session: &'a Session,
    wanted: Descriptor,
    progress: &'a Arc<Progress>,
    /// Away only while it writes.
    writer: Option<BlobWriter>,
}

impl Download<'_> {
    fn written_bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, BlobWriter::written_bytes)
    }

    /// Reads until all is here or it breaks off.
    async fn go_on(&mut self, breaks: &mut u32) -> Result<(), RegistryError> {
        let from = self.written_bytes();
        if from == self.wanted.size_bytes && from > 0 {
            return Ok(());
        }
        let mut answer = self.session.blob(&self.wanted.digest, from).await?;
        let mut skip = self.check(&answer, from)?;
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        loop {
            let chunk = match answer.chunk().await {
                Ok(chunk) => chunk,
                Err(error) => {
                    // What came until here need not come again.
                    self.write(&mut batch, breaks).await?;
                    return Err(self.session.unreachable(&error));
                }
            };
            let Some(chunk) = chunk else { break };
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= skipped as u64;
            batch.extend_from_slice(&chunk[skipped..]);
            if self.written_bytes() + batch.len() as u64 > self.wanted.size_bytes {
                return Err(self.lie("more".to_owned()));
            }
            if batch.len() >= BATCH_BYTES {
                self.write(&mut batch, breaks).await?;
            }
        }
        self.write(&mut batch, breaks).await?;
        match self.written_bytes() {
            bytes if bytes == self.wanted.size_bytes => Ok(()),
            bytes => Err(self.lie(bytes.to_string())),
        }
    }

    /// Checks an answer's headers; returns how many of its first bytes are here already.
    fn check(&self, answer: &Response, from: u64) -> Result<u64, RegistryError> {
        let range = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let begin = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
        let skip = match (answer.status(), begin) {
            (StatusCode::PARTIAL_CONTENT, Some(begin)) if begin <= from => from - begin,
            (StatusCode::PARTIAL_CONTENT, _) => return Err(self.lie("another part".to_owned())),
            // It sends all from the beginning, whatever was asked for.
            _ => from,
        };
        let begin = from - skip;
        match answer.content_length() {
            Some(length) if begin.saturating_add(length) != self.wanted.size_bytes => {
                Err(self.lie(begin.saturating_add(length).to_string()))
            }
            Some(_) | None => Ok(skip),
        }
    }

    fn lie(&self, sent: String) -> RegistryError {
        let what = self.session.what(&format!("blobs/{}", self.wanted.digest));
        RegistryError::Size { host: self.session.host().to_owned(), what, announced: self.wanted.size_bytes, sent }
    }

    async fn write(&mut self, batch: &mut Vec<u8>, breaks: &mut u32) -> Result<(), RegistryError> {
        if batch.is_empty() {
            return Ok(());
        }
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let bytes = std::mem::replace(batch, Vec::with_capacity(BATCH_BYTES));
        let writer = blocking(move || {
            writer.write_all(&bytes).map_err(RegistryError::Io)?;
            Ok(writer)
        });
        let writer = writer.await?;
        *breaks = 0;
        (self.progress)(Step::Downloading {
            digest: self.wanted.digest,
            done_bytes: writer.written_bytes(),
            total_bytes: self.wanted.size_bytes,
        });
        self.writer = Some(writer);
        Ok(())
    }
}
