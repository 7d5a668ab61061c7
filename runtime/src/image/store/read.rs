//! Reading: from a digest to the image that it names, or to what is still needed of it.
//!
//! Input: the digest of a manifest, or of an index of several platforms, which leads to the manifest for this machine.
//! Output: the image with its configuration, or the blobs that are missing.

use std::collections::BTreeSet;

use oci_spec::image::ImageIndex;

use super::{ImageStore, StoreError, blob::read_document, io_error, locked};
use crate::image::{
    digest::Digest,
    document::{Descriptor, Image, Manifest, descriptor, parse_json},
    platform,
};

/// Where a digest leads.
enum Found {
    /// To a manifest that is here.
    Manifest(Digest, Manifest),
    /// To a document that is not here yet.
    Missing(Descriptor),
}

impl ImageStore {
    /// Returns the image with this manifest or index, registered or not, if all its blobs are here.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] if blobs are missing, [`StoreError::Document`] if it cannot be run,
    /// [`StoreError::Platform`] if it is for other machines, [`StoreError::Io`] if the disk fails.
    pub fn image(&self, digest: &Digest) -> Result<Image, StoreError> {
        let (manifest_digest, manifest) = match self.follow(digest)? {
            Found::Manifest(digest, manifest) => (digest, manifest),
            Found::Missing(_) => return Err(StoreError::Incomplete { digest: *digest, missing: 1 }),
        };
        let missing = self.missing_of(&manifest).len();
        if missing > 0 {
            return Err(StoreError::Incomplete { digest: *digest, missing });
        }
        let config_digest = manifest.config.digest;
        let config = self.document("image configuration", &config_digest)?;
        let config = config.ok_or(StoreError::Incomplete { digest: *digest, missing: 1 })?;
        let mut image = manifest
            .into_image(manifest_digest, &config)
            .map_err(|source| StoreError::Document { digest: config_digest, source })?;
        if let Some(record) = locked(&self.index).images.get(&manifest_digest) {
            image.references = record.references.clone();
            image.indexes = record.indexes.clone();
        }
        Ok(image)
    }

    /// Returns what is still needed of the image with this manifest or index: first that document itself (of an index,
    /// then the manifest for this machine), and once that is here, configuration and layers. A fetcher asks again until
    /// nothing is missing, then [registers](ImageStore::register) the image. Sizes are upper bounds for
    /// [`ImageStore::writer`].
    ///
    /// # Errors
    /// [`StoreError::Document`] if a document is here but is none or exceeds the limits, [`StoreError::Platform`] if
    /// the image is for other machines, [`StoreError::Io`] if the disk fails.
    pub fn missing(&self, digest: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        match self.follow(digest)? {
            Found::Manifest(_, manifest) => Ok(self.missing_of(&manifest)),
            Found::Missing(document) => Ok(vec![document]),
        }
    }

    fn missing_of(&self, manifest: &Manifest) -> Vec<Descriptor> {
        let missing: BTreeSet<_> = manifest.blobs().filter(|blob| !self.blobs.contains(&blob.digest)).collect();
        missing.into_iter().copied().collect()
    }

    fn follow(&self, digest: &Digest) -> Result<Found, StoreError> {
        let unusable = |source| StoreError::Document { digest: *digest, source };
        let bytes_max = self.limits.document_bytes_max;
        let Some(bytes) = self.document("manifest", digest)? else {
            return Ok(Found::Missing(Descriptor { digest: *digest, size_bytes: bytes_max }));
        };
        if !platform::is_index(&bytes).map_err(unusable)? {
            let manifest = Manifest::parse(&bytes, &self.limits).map_err(unusable)?;
            return Ok(Found::Manifest(*digest, manifest));
        }
        let index: ImageIndex = parse_json("image index", &bytes).map_err(unusable)?;
        let Some(part) = platform::choose(&index) else {
            let found = platform::listed(index.manifests().iter().filter_map(platform::shown).collect());
            return Err(StoreError::Platform { digest: *digest, wanted: platform::host(), found });
        };
        let part = descriptor(part, bytes_max).map_err(unusable)?;
        match self.manifest(&part.digest)? {
            Some(manifest) => Ok(Found::Manifest(part.digest, manifest)),
            None => Ok(Found::Missing(part)),
        }
    }

    /// Returns the manifest that a digest leads to, if it is here.
    pub(super) fn manifest_of(&self, digest: &Digest) -> Result<Option<(Digest, Manifest)>, StoreError> {
        match self.follow(digest)? {
            Found::Manifest(digest, manifest) => Ok(Some((digest, manifest))),
            Found::Missing(_) => Ok(None),
        }
    }

    fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>, StoreError> {
        let Some(bytes) = self.document("manifest", digest)? else { return Ok(None) };
        let manifest = Manifest::parse(&bytes, &self.limits);
        manifest.map(Some).map_err(|source| StoreError::Document { digest: *digest, source })
    }

    pub(super) fn document(&self, what: &'static str, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || {
            let Some((file, bytes)) = self.blobs.open_blob(digest)? else { return Ok(None) };
            read_document(what, file, bytes, self.limits.document_bytes_max).map(Some)
        };
        match read().map_err(io_error("read", &self.root.join("blobs/sha256").join(digest.hex())))? {
            Some(document) => document.map(Some).map_err(|source| StoreError::Document { digest: *digest, source }),
            None => Ok(None),
        }
    }
}
