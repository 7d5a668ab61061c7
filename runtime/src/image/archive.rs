//! Archives: images in one file, as `docker save` and OCI tools write them.
//!
//! Input: a tar, perhaps gzipped, in one of three layouts: `docker save` before version 25 (`manifest.json` and one
//! folder per layer), since then (the same and an OCI layout), or an OCI layout alone. Output: verified blobs in the
//! store and the images to register. Everything goes to temporary files first; blobs are taken over when the whole
//! archive has been understood and checked, so a bad archive leaves nothing.

mod docker;
mod oci;
mod spool;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
};

use super::{
    compression::CompressionError,
    digest::{Digest, DigestError},
    document::{Descriptor, DocumentError, Image, Manifest},
    limits::Limits,
    reference::{Reference, ReferenceError},
    store::{
        StoreError,
        blob::Blobs,
        temp::{Temp, TempFile},
    },
    tar_stream::TarError,
};
use spool::Spool;

/// An image that an archive held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The names that the archive gives it. May be empty.
    pub references: Vec<Reference>,
    /// The digest of its manifest.
    pub digest: Digest,
}

/// What the store's index needs to know of it.
pub(super) struct LoadedImage {
    pub(super) loaded: Loaded,
    pub(super) config: Digest,
}

/// Why an archive was not loaded. The store is as it was before, but for the last two kinds, after which unreferenced
/// blobs may remain for [`super::ImageStore::prune`].
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive itself is broken or exceeds a limit.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The archive's compression is not supported.
    #[error("the archive cannot be read")]
    Compression(#[from] CompressionError),
    /// An entry's name is absolute, leads upwards, or is not text.
    #[error("archive entry {0:?} has a path that is not allowed; the file may have been tampered with")]
    Path(String),
    /// A device or the like, which no image archive has.
    #[error("archive entry {0:?} is neither a file nor a directory nor a link")]
    Kind(String),
    /// A file's bytes do not have the digest that it is named by.
    #[error("wrong digest: {path} has {found}, expected {expected}; the file may be damaged")]
    Digest {
        /// The entry.
        path: String,
        /// What its name or the configuration says.
        expected: Digest,
        /// What its bytes have.
        found: Digest,
    },
    /// A file has a name that should be a digest.
    #[error("archive entry {path:?} should be named by a digest")]
    Name {
        /// The entry.
        path: String,
        /// What is wrong with its name.
        #[source]
        source: DigestError,
    },
    /// Something that the archive refers to is not in it.
    #[error("the archive is incomplete: {0} is missing")]
    Missing(String),
    /// A blob is longer or shorter than the manifest says.
    #[error("blob {digest} has {found} bytes, the manifest says {declared}")]
    Size {
        /// The blob.
        digest: Digest,
        /// What the manifest says.
        declared: u64,
        /// How long it is.
        found: u64,
    },
    /// Neither `manifest.json` nor `index.json` is in the archive.
    #[error(
        "the archive holds no image: neither manifest.json nor index.json is in it; make it with docker save or as an OCI layout"
    )]
    NoImage,
    /// The archive has images for other processors or systems only.
    #[error("the archive has no image for {wanted}, it has {found}")]
    Platform {
        /// This machine's platform.
        wanted: String,
        /// Those of the archive.
        found: String,
    },
    /// More images than [`Limits::archive_images_max`], or indexes nested deeper than any tool does.
    #[error("the archive holds more than {max} images or nests them too deeply")]
    Images {
        /// The bound.
        max: usize,
    },
    /// A manifest, index or configuration is not usable.
    #[error("{path} cannot be used")]
    Document {
        /// The entry.
        path: String,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// The archive gives an image an invalid name.
    #[error("the archive names an image {name:?}")]
    Reference {
        /// The name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: ReferenceError,
    },
    /// The disk failed.
    #[error("cannot store the archive's contents")]
    Io(#[source] io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads an archive and takes over the blobs of its images.
pub(super) fn read(
    archive: impl Read,
    blobs: &Blobs,
    temp: &Temp,
    limits: &Limits,
) -> Result<Vec<LoadedImage>, LoadError> {
    let spool = Spool::read(archive, temp, limits)?;
    let mut plan = Plan { spool, blobs, limits, images: BTreeMap::new(), made: BTreeMap::new() };
    if plan.spool.contains(oci::INDEX) {
        oci::plan(&mut plan)?;
    } else if plan.spool.contains(docker::MANIFEST) {
        docker::plan(&mut plan, temp)?;
    } else {
        return Err(LoadError::NoImage);
    }
    plan.carry_out()
}

/// What is to be taken over from an archive.
struct Plan<'a> {
    spool: Spool,
    blobs: &'a Blobs,
    limits: &'a Limits,
    /// By the digest of the manifest.
    images: BTreeMap<Digest, (Image, Manifest, Vec<Reference>)>,
    /// Manifests written for archives that have none, with their lengths.
    made: BTreeMap<Digest, (TempFile, u64)>,
}

impl Plan<'_> {
    /// Checks an image from its manifest down to each blob and adds it, or more names of it.
    fn add_image(&mut self, digest: Digest, manifest: &[u8], references: Vec<Reference>) -> Result<(), LoadError> {
        let at = |path: &Digest| {
            let path = format!("blob {path}");
            move |source| LoadError::Document { path, source }
        };
        let manifest = Manifest::parse(manifest, self.limits).map_err(at(&digest))?;
        for blob in manifest.blobs() {
            self.check_blob(blob)?;
        }
        let config = self.document("image configuration", &manifest.config.digest)?;
        let image = manifest.clone().into_image(digest, &config).map_err(at(&manifest.config.digest))?;
        let names = &mut self.images.entry(digest).or_insert((image, manifest, Vec::new())).2;
        for reference in references {
            if !names.contains(&reference) {
                names.push(reference);
            }
        }
        if self.images.len() > self.limits.archive_images_max {
            return Err(LoadError::Images { max: self.limits.archive_images_max });
        }
        Ok(())
    }

    fn check_blob(&self, blob: &Descriptor) -> Result<(), LoadError> {
        let found = match self.spool.by_digest(&blob.digest) {
            Some(spooled) => spooled.bytes,
            None => match self.blobs.open_blob(&blob.digest).map_err(LoadError::Io)? {
                Some((_, bytes)) => bytes,
                None => return Err(LoadError::Missing(format!("blob {}", blob.digest))),
            },
        };
        if found != blob.size_bytes {
            return Err(LoadError::Size { digest: blob.digest, declared: blob.size_bytes, found });
        }
        Ok(())
    }

    /// Reads a document of the archive, or of the store if the archive relies on that.
    fn document(&self, what: &'static str, digest: &Digest) -> Result<Vec<u8>, LoadError> {
        if let Some(spooled) = self.spool.by_digest(digest) {
            return spooled.document(what, self.limits.document_bytes_max);
        }
        let missing = || LoadError::Missing(format!("{what} {digest}"));
        let (file, bytes) = self.blobs.open_blob(digest).map_err(LoadError::Io)?.ok_or_else(missing)?;
        super::store::blob::read_document(what, file, bytes, self.limits.document_bytes_max)
            .map_err(LoadError::Io)?
            .map_err(|source| LoadError::Document { path: format!("blob {digest}"), source })
    }

    fn carry_out(mut self) -> Result<Vec<LoadedImage>, LoadError> {
        let mut wanted: BTreeSet<Digest> = self.images.keys().copied().collect();
        wanted.extend(self.images.values().flat_map(|(_, manifest, _)| manifest.blobs().map(|blob| blob.digest)));
        let mut take =
            |digest: &Digest| self.made.remove(digest).map(|(file, _)| file).or_else(|| self.spool.take(digest));
        let files = wanted.into_iter().filter_map(|digest| Some((take(&digest)?, digest))).collect();
        self.blobs.adopt(files).map_err(LoadError::Io)?;
        let images = self.images.into_iter().map(|(digest, (image, _, references))| LoadedImage {
            loaded: Loaded { references, digest },
            config: image.config_digest,
        });
        Ok(images.collect())
    }
}

fn parse_reference(name: &str) -> Result<Reference, LoadError> {
    let shown = || name.chars().take(200).collect();
    name.parse().map_err(|source| LoadError::Reference { name: shown(), source })
}
