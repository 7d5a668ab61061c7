//! Growing: blobs that are still coming, readable as far as they have come.
//!
//! So that a piece which one node fetches can go on to the next at once: nodes form a chain, and the first source sends
//! its bytes only once. What is read here is not verified yet; whoever takes it checks the digest at the end.

use std::{collections::BTreeMap, fs::File, sync::Arc, sync::Mutex};

use tokio::sync::watch;

use super::{ImageStore, locked};
use crate::image::digest::Digest;

/// A blob on its way here.
#[derive(Clone, Debug)]
pub struct Growing {
    /// The file that it is written to. Read it by position only: it is shared, and survives the blob's completion.
    pub file: Arc<File>,
    /// How many bytes the whole blob has.
    pub bytes: u64,
    /// How many are there. Its sender goes when the writer does; the blob is complete then only if all are there.
    pub written: watch::Receiver<u64>,
}

/// All blobs that grow. One that ended is forgotten when the next is added or looked for.
#[derive(Debug, Default)]
pub(super) struct Growth(Mutex<BTreeMap<Digest, Growing>>);

impl Growth {
    /// Adds a blob unless it grows already; tells whether it was added.
    pub(super) fn add(&self, digest: Digest, growing: Growing) -> bool {
        let mut all = locked(&self.0);
        all.retain(|_, growing| growing.written.has_changed().is_ok());
        let is_new = !all.contains_key(&digest);
        all.entry(digest).or_insert(growing);
        is_new
    }

    fn find(&self, digest: &Digest) -> Option<Growing> {
        let mut all = locked(&self.0);
        all.retain(|_, growing| growing.written.has_changed().is_ok());
        all.get(digest).cloned()
    }
}

impl ImageStore {
    /// Returns a blob that is still coming, if this one is.
    pub fn open_growing(&self, digest: &Digest) -> Option<Growing> {
        self.blobs.growing.find(digest)
    }
}
