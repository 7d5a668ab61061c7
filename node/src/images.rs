//! Images as the node sees them: its own store, the peers that have what is missing, and registries.
//!
//! Input: what tasks need, what operators load and pull. Output: unpacked layers, and the list of this node's images as
//! a watched level, which the core tells to all. A registry is asked only for what no node has, and by one node.

pub mod ahead;
mod fetch;
mod order;
mod sources;
pub mod space;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use shoal_cluster::intent::service::ImageRef;
use shoal_cluster::{NodeId, Views};
use shoal_runtime::image::progress::Progress;
use shoal_runtime::image::registry::{Login, Registries, RegistryError};
use shoal_runtime::image::{Digest, Held, Image, ImageStore, Reference};
use tokio::sync::watch;

pub use sources::ImageSources;

use crate::transport::Transport;

/// Why an image cannot be used here. The text is shown in `service ps`.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No node that is up gave it, and neither did its registry.
    #[error("image {image} is not on this node, no peer gave it ({peers}), and neither did its registry: {registry}")]
    NoSource {
        /// Which.
        image: String,
        /// What the last peer that was asked said.
        peers: String,
        /// What the registry said.
        registry: String,
    },
    /// The task names no digest, and the name is not known here.
    #[error("image {0} is not known in this shoal: load it with `shoal image load FILE`")]
    Unknown(String),
    /// The image store failed.
    #[error("{0}")]
    Store(String),
}

/// Why a name was not found out or pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry said no, and no node has it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Neither the peers that have it nor the registry gave it, or the store failed.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// This node's images and the way to those of others.
pub struct Images {
    own: NodeId,
    store: Arc<ImageStore>,
    transport: Transport,
    registries: Registries,
    views: watch::Receiver<Arc<Views>>,
    list: watch::Sender<BTreeSet<String>>,
    fetching: Mutex<BTreeMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    /// Makes the images of node `own`; `list` is the level of [`list_of`], published again by [`Images::changed`].
    pub fn new(
        own: NodeId,
        store: Arc<ImageStore>,
        transport: Transport,
        registries: Registries,
        views: watch::Receiver<Arc<Views>>,
        list: watch::Sender<BTreeSet<String>>,
    ) -> Self {
        Self { own, store, transport, registries, views, list, fetching: Mutex::default() }
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<ImageStore> {
        &self.store
    }

    /// Returns the way to registries.
    pub fn registries(&self) -> &Registries {
        &self.registries
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

    /// Returns the digest that a name stands for here or, if here it stands for none, at the peers.
    pub fn resolve(&self, text: &str) -> Option<Digest> {
        if let Some(digest) = self.store.resolve(text) {
            return Some(digest);
        }
        let reference: Reference = text.parse().ok()?;
        let views = self.views.borrow().clone();
        if let Some(digest) = reference.digest() {
            return (!order::holders(&views, &digest).is_empty()).then_some(digest);
        }
        let prefix = format!("{reference}@");
        let held = views.images.iter().filter_map(|(image, nodes)| Some((nodes.len(), image.strip_prefix(&prefix)?)));
        held.max().and_then(|(_, digest)| digest.parse().ok())
    }

    /// Returns the digest that a name stands for: here, at the peers, or else at its registry.
    ///
    /// # Errors
    /// What the registry said, if no node knows the name.
    pub async fn find(&self, reference: &Reference, login: Option<&Login>) -> Result<Digest, RegistryError> {
        match self.resolve(&reference.to_string()) {
            Some(digest) => Ok(digest),
            None => self.registries.resolve(reference, login).await.map(|resolved| resolved.digest),
        }
    }

    /// Fetches what a name means at its registry now, from peers as far as they have it; if the registry cannot be asked,
    /// what the peers mean by it. Returns the digest, and whether anything had to be fetched.
    ///
    /// # Errors
    /// [`PullError`] says who refused. Nothing half is registered.
    pub async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        login: Option<&Login>,
        progress: &Arc<Progress>,
    ) -> Result<(Digest, bool), PullError> {
        let digest = match self.registries.resolve(reference, login).await {
            Ok(resolved) => resolved.digest,
            Err(error) => self.resolve(&reference.to_string()).ok_or(error)?,
        };
        let turn = self.turn(digest);
        let _one_at_a_time = turn.lock().await;
        let is_newer = self.store.image(&digest).is_err();
        if is_newer && !self.is_held(&digest) {
            self.registries.pull(&self.store, &pinned(reference, digest), login, progress).await?;
        } else {
            self.fetch(&digest, &reference.to_string(), progress).await?;
        }
        let (store, name) = (Arc::clone(&self.store), reference.clone());
        blocking(move || store.register(digest, Some(name))).await?;
        self.changed();
        Ok((digest, is_newer))
    }

    /// Returns an image and its unpacked layers, bottom to top, after fetching what is missing.
    pub async fn ensure(
        self: &Arc<Self>,
        reference: &str,
        digest: Option<&str>,
    ) -> Result<(Image, Vec<PathBuf>), ImageError> {
        let pinned = digest.and_then(|digest| digest.parse().ok());
        let digest =
            pinned.or_else(|| self.resolve(reference)).ok_or_else(|| ImageError::Unknown(reference.to_owned()))?;
        let turn = self.turn(digest);
        let _one_at_a_time = turn.lock().await;
        self.fetch(&digest, reference, &(Arc::new(|_| {}) as Arc<Progress>)).await?;
        let store = Arc::clone(&self.store);
        let image = blocking(move || store.image(&digest)).await?;
        let store = Arc::clone(&self.store);
        let layers = blocking(move || store.unpack(&digest)).await?;
        Ok((image, layers))
    }

    /// Keeps the image of a task from being pruned until what is returned is dropped.
    pub fn hold(&self, image: &ImageRef) -> Option<Held> {
        let digest = image.digest.as_ref().and_then(|digest| digest.parse().ok());
        digest.or_else(|| self.store.resolve(&image.reference)).map(|digest| Held::new(&self.store, digest))
    }

    /// Returns the lock that lets one task at a time fetch and unpack this image.
    fn turn(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, turn| Arc::strong_count(turn) > 1);
        fetching.entry(digest).or_default().clone()
    }

    /// Tells whether a task or an operator waits for an image.
    fn is_busy(&self) -> bool {
        let fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.values().any(|turn| Arc::strong_count(turn) > 1)
    }

    /// Tells whether another node that is up has the image.
    fn is_held(&self, digest: &Digest) -> bool {
        let views = self.views.borrow();
        order::holders(&views, digest).iter().any(|node| *node != self.own)
    }

    /// Fetches an image as far as it is not here: from peers, or else from its registry.
    async fn fetch(
        self: &Arc<Self>,
        digest: &Digest,
        reference: &str,
        progress: &Arc<Progress>,
    ) -> Result<(), ImageError> {
        if self.store.image(digest).is_ok() {
            return Ok(());
        }
        if let Err(peers) = self.fetch_from_peers(*digest, progress).await {
            let no_source = |registry| ImageError::NoSource { image: reference.to_owned(), peers, registry };
            let name: Reference = match reference.parse() {
                Ok(name) => pinned(&name, *digest),
                Err(error) => return Err(no_source(chain(&error))),
            };
            let pulled = self.registries.pull(&self.store, &name, None, progress).await;
            pulled.map_err(|error| no_source(chain(&error)))?;
        }
        let name = reference.parse::<Reference>().ok();
        let name = name.filter(|name| self.store.resolve(&name.to_string()).is_none());
        let (store, digest) = (Arc::clone(&self.store), *digest);
        blocking(move || store.register(digest, name)).await?;
        tracing::info!(image = reference, %digest, "fetched an image");
        self.changed();
        Ok(())
    }
}

/// Returns the repository of a name with this digest, and no tag: a task's image does not move names.
fn pinned(reference: &Reference, digest: Digest) -> Reference {
    format!("{}@{digest}", reference.familiar_name()).parse().unwrap_or_else(|_| reference.clone())
}

/// Runs a call of the store, which blocks, where that is allowed.
async fn blocking<T, E>(call: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, ImageError>
where
    T: Send + 'static,
    E: std::error::Error + Send + 'static,
{
    let done = tokio::task::spawn_blocking(call).await;
    done.map_err(|error| ImageError::Store(error.to_string()))?.map_err(|error| ImageError::Store(chain(&error)))
}

/// Returns all images of a store: `reference@digest` for each name, `digest` for those without, both also by the digest
/// of an index that leads to the image.
pub fn list_of(store: &ImageStore) -> BTreeSet<String> {
    let mut list = BTreeSet::new();
    for image in store.list() {
        for digest in std::iter::once(&image.digest).chain(&image.indexes) {
            let tagged = image.references.iter().filter(|reference| reference.digest().is_none());
            let names: Vec<String> = tagged.map(|reference| format!("{reference}@{digest}")).collect();
            if names.is_empty() {
                list.insert(digest.to_string());
            }
            list.extend(names);
        }
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
