//! Held: an image that is being fetched is not pruned, though nothing refers to it yet.

use std::sync::Arc;

use super::{ImageStore, locked};
use crate::image::digest::Digest;

/// Keeps all that a manifest or index leads to from being pruned, until it is dropped.
#[derive(Debug)]
pub struct Held {
    store: Arc<ImageStore>,
    digest: Digest,
}

impl Held {
    /// Holds the image with this manifest or index, which need not be here yet.
    pub fn new(store: &Arc<ImageStore>, digest: Digest) -> Self {
        *locked(&store.held).entry(digest).or_default() += 1;
        Self { store: Arc::clone(store), digest }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = locked(&self.store.held);
        if let Some(holders) = held.get_mut(&self.digest) {
            *holders -= 1;
            if *holders == 0 {
                held.remove(&self.digest);
            }
        }
    }
}

impl ImageStore {
    pub(super) fn held(&self) -> Vec<Digest> {
        locked(&self.held).keys().copied().collect()
    }
}
