//! Images as the node sees them: its own store, and the peers that have what is missing.
//!
//! Input: what tasks need, what operators load. Output: unpacked layers, and the list of this node's images as a
//! watched level, which the core tells to all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use shoal_cluster::{NodeId, Views};
use shoal_runtime::image::{Descriptor, Digest, Image, ImageStore, Reference};
use tokio::sync::watch;
use tokio_util::io::SyncIoBridge;

use crate::transport::Transport;

/// Why an image cannot be used here. The text is shown in `service ps`.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No node that is up has it, or none gave it.
    #[error("image {image} is not on this node, and no peer gave it: {reason}")]
    NoSource {
        /// Which.
        image: String,
        /// What the last peer that was asked said.
        reason: String,
    },
    /// The task names no digest, and the name is not known here.
    #[error("image {0} is not known in this shoal: load it with `shoal image load FILE`")]
    Unknown(String),
    /// The image store failed.
    #[error("{0}")]
    Store(String),
}

/// This node's images and the way to those of others.
pub struct Images {
    store: Arc<ImageStore>,
    transport: Transport,
    views: watch::Receiver<Arc<Views>>,
    list: watch::Sender<BTreeSet<String>>,
    fetching: Mutex<BTreeMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    /// Makes the node's images; `list` is the level of [`list_of`], published again by [`Images::changed`].
    pub fn new(
        store: Arc<ImageStore>,
        transport: Transport,
        views: watch::Receiver<Arc<Views>>,
        list: watch::Sender<BTreeSet<String>>,
    ) -> Self {
        Self { store, transport, views, list, fetching: Mutex::default() }
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<ImageStore> {
        &self.store
    }

    /// Publishes the list again, after images came or went.
    pub fn changed(&self) {
        let now = list_of(&self.store);
        self.list.send_if_modified(|last| {
            let differ = *last != now;
            if differ {
                *last = now;
            }
            differ
        });
    }

    /// Returns the manifest digest that a name stands for here or, if here it stands for none, at the peers.
    pub fn resolve(&self, text: &str) -> Option<Digest> {
        if let Some(digest) = self.store.resolve(text) {
            return Some(digest);
        }
        let reference: Reference = text.parse().ok()?;
        let views = self.views.borrow().clone();
        let known = |digest: &Digest| views.images.keys().any(|image| image.ends_with(&digest.to_string()));
        if let Some(digest) = reference.digest() {
            return known(&digest).then_some(digest);
        }
        let prefix = format!("{reference}@");
        let held = views.images.iter().filter_map(|(image, nodes)| Some((nodes.len(), image.strip_prefix(&prefix)?)));
        held.max().and_then(|(_, digest)| digest.parse().ok())
    }

    /// Returns an image and its unpacked layers, bottom to top, after fetching from peers what is missing.
    pub async fn ensure(&self, reference: &str, digest: Option<&str>) -> Result<(Image, Vec<PathBuf>), ImageError> {
        let pinned = digest.and_then(|digest| digest.parse().ok());
        let digest =
            pinned.or_else(|| self.resolve(reference)).ok_or_else(|| ImageError::Unknown(reference.to_owned()))?;
        let turn = self.turn(digest);
        let _one_at_a_time = turn.lock().await;
        self.fetch(&digest, reference).await?;
        let store = Arc::clone(&self.store);
        let unpacked = tokio::task::spawn_blocking(move || {
            let image = store.image(&digest).map_err(|error| ImageError::Store(chain(&error)))?;
            let layers = store.unpack(&digest).map_err(|error| ImageError::Store(chain(&error)))?;
            Ok((image, layers))
        });
        unpacked.await.unwrap_or_else(|error| Err(ImageError::Store(error.to_string())))
    }

    /// Returns the lock that lets one task at a time fetch and unpack this image.
    fn turn(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, turn| Arc::strong_count(turn) > 1);
        fetching.entry(digest).or_default().clone()
    }

    async fn fetch(&self, digest: &Digest, reference: &str) -> Result<(), ImageError> {
        if self.store.image(digest).is_ok() {
            return Ok(());
        }
        let mut reason = "no node that is up has it".to_owned();
        for peer in self.sources(digest) {
            match self.fetch_from(peer, digest).await {
                Ok(()) => {
                    let name = reference
                        .parse::<Reference>()
                        .ok()
                        .filter(|name| self.store.resolve(&name.to_string()).is_none());
                    self.store.register(*digest, name).map_err(|error| ImageError::Store(chain(&error)))?;
                    tracing::info!(image = reference, %digest, from = %peer, "fetched an image");
                    self.changed();
                    return Ok(());
                }
                Err(failed) => reason = failed,
            }
        }
        Err(ImageError::NoSource { image: reference.to_owned(), reason })
    }

    /// Returns whom to ask: those who say that they have it, then everybody else who is connected.
    fn sources(&self, digest: &Digest) -> Vec<NodeId> {
        let views = self.views.borrow().clone();
        let text = digest.to_string();
        let own = views.routes.own;
        let mut sources: Vec<NodeId> = Vec::new();
        let holders = views.images.iter().filter(|(image, _)| image.ends_with(&text)).flat_map(|(_, nodes)| nodes);
        for node in holders.copied().chain(self.transport.peers().into_keys()) {
            if views.blocks.get(&node) != Some(&own) && !sources.contains(&node) {
                sources.push(node);
            }
        }
        sources
    }

    async fn fetch_from(&self, peer: NodeId, digest: &Digest) -> Result<(), String> {
        loop {
            let missing = self.store.missing(digest).map_err(|error| chain(&error))?;
            if missing.is_empty() {
                return Ok(());
            }
            for blob in missing {
                self.fetch_blob(peer, blob).await?;
            }
        }
    }

    async fn fetch_blob(&self, peer: NodeId, wanted: Descriptor) -> Result<(), String> {
        let blob =
            self.transport.fetch_blob(peer, &wanted.digest.to_string(), 0).await.map_err(|error| chain(&error))?;
        let store = Arc::clone(&self.store);
        let mut reader = SyncIoBridge::new(blob);
        let written = tokio::task::spawn_blocking(move || {
            let mut writer = store.writer(wanted.digest, wanted.size_bytes).map_err(|error| chain(&error))?;
            std::io::copy(&mut reader, &mut writer).map_err(|error| chain(&error))?;
            writer.commit().map_err(|error| chain(&error))
        });
        written.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// Returns all images of a store: `reference@digest` for each name, `digest` for those without.
pub fn list_of(store: &ImageStore) -> BTreeSet<String> {
    let mut list = BTreeSet::new();
    for image in store.list() {
        if image.references.is_empty() {
            list.insert(image.digest.to_string());
        }
        list.extend(image.references.iter().map(|reference| format!("{reference}@{}", image.digest)));
    }
    list
}

/// Returns an error with its causes in one line, each said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let cause_text = inner.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        cause = inner.source();
    }
    text
}
