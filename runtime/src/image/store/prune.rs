//! Pruning: gives back the space of what no image needs.
//!
//! Input: what is in use outside the store's knowledge. Output: what was removed. Removes images without a name, then
//! blobs and layer directories that no remaining image refers to.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path, sync::PoisonError};

use super::{ImageStore, StoreError, io_error, locked, unpack::layer_of};
use crate::image::digest::Digest;

/// What pruning removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Manifests of images that had no name and were not in use.
    pub images: Vec<Digest>,
    /// Blobs removed.
    pub blobs: Vec<Digest>,
    /// Layer directories removed.
    pub layers: usize,
    /// Bytes on disk that were given back.
    pub bytes: u64,
}

impl ImageStore {
    /// Removes what no image needs: images without a name, blobs and layers.
    ///
    /// `in_use` names manifests that must stay although they have no name here: those of tasks that run or will run,
    /// and those that will be fetched (a manifest that is not here yet included). It may name other blobs too. What is
    /// held stays anyway.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the disk fails, [`StoreError::Document`] if a manifest cannot be read. What was removed
    /// until then stays removed; all remaining images are still complete.
    pub fn prune(&self, in_use: &BTreeSet<Digest>) -> Result<Pruned, StoreError> {
        let in_use = &in_use.iter().copied().chain(self.held()).collect();
        let _activity = self.blobs.activity.write().unwrap_or_else(PoisonError::into_inner);
        let mut pruned = Pruned { images: self.drop_nameless(in_use)?, ..Pruned::default() };
        let mut kept: BTreeSet<Digest> = {
            let index = locked(&self.index);
            let indexes = index.images.values().flat_map(|record| &record.indexes);
            index.images.keys().chain(indexes).copied().collect()
        };
        kept.extend(in_use);
        let mut kept_layers = BTreeSet::new();
        for digest in kept.clone() {
            self.keep_parts(&digest, in_use, &mut kept, &mut kept_layers)?;
        }
        self.prune_layers(&kept_layers, &mut pruned)?;
        let path = self.root.join("blobs/sha256");
        for (digest, bytes) in self.blobs.list().map_err(io_error("list", &path))? {
            if !kept.contains(&digest) {
                self.blobs.remove(&digest).map_err(io_error("remove a blob from", &path))?;
                pruned.blobs.push(digest);
                pruned.bytes += bytes;
            }
        }
        Ok(pruned)
    }

    fn drop_nameless(&self, in_use: &BTreeSet<Digest>) -> Result<Vec<Digest>, StoreError> {
        self.change(|index| {
            let nameless = index.images.iter().filter(|(digest, record)| {
                let mut names = [*digest, &record.config].into_iter().chain(&record.indexes);
                record.references.is_empty() && !names.any(|name| in_use.contains(name))
            });
            let nameless: Vec<Digest> = nameless.map(|(digest, _)| *digest).collect();
            index.images.retain(|digest, _| !nameless.contains(digest));
            nameless
        })
    }

    /// Adds what a kept manifest refers to. Something in use that is no manifest is kept by itself.
    fn keep_parts(
        &self,
        digest: &Digest,
        in_use: &BTreeSet<Digest>,
        kept: &mut BTreeSet<Digest>,
        kept_layers: &mut BTreeSet<Digest>,
    ) -> Result<(), StoreError> {
        match self.manifest_of(digest) {
            Ok(Some((digest, manifest))) => {
                kept.insert(digest);
                kept.extend(manifest.blobs().map(|blob| blob.digest));
            }
            Ok(None) => return Ok(()),
            Err(StoreError::Document { .. } | StoreError::Platform { .. }) if in_use.contains(digest) => return Ok(()),
            Err(error) => return Err(error),
        }
        match self.image(digest) {
            Ok(image) => kept_layers.extend(image.layers.iter().map(|layer| layer.diff_id)),
            // Not complete, so not unpacked either.
            Err(StoreError::Incomplete { .. } | StoreError::Document { .. } | StoreError::Platform { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn prune_layers(&self, kept: &BTreeSet<Digest>, pruned: &mut Pruned) -> Result<(), StoreError> {
        let layers = self.root.join("layers");
        for entry in fs::read_dir(&layers).map_err(io_error("list", &layers))? {
            let entry = entry.map_err(io_error("list", &layers))?;
            let layer = entry.file_name().to_str().and_then(layer_of);
            if layer.is_some_and(|layer| kept.contains(&layer)) {
                continue;
            }
            let path = entry.path();
            pruned.bytes += tree_bytes(&path);
            self.temp.discard(&path).map_err(io_error("remove", &path))?;
            pruned.layers += 1;
        }
        Ok(())
    }
}

/// Bytes on disk below a directory, as far as they can be found out; only for the report.
fn tree_bytes(root: &Path) -> u64 {
    let mut pending = vec![root.to_owned()];
    let mut bytes = 0;
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            // Of a directory entry, not followed: a link out of the layer must not be counted.
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    bytes
}
