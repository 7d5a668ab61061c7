//! The store: images of one node, on disk.
//!
//! Input: archives, blobs from peers, names. Output: images, blobs for peers, layer directories for overlayfs. Below
//! its root are `blobs/sha256/<hex>`, `layers/<diff id>/` (a cache, rebuilt from the blobs), `index.json` (which
//! manifests are images, and their names), `tmp/` (unfinished things) and `lock`.
//! Blobs and names survive a power failure; nothing is visible before it is complete and verified.

pub(super) mod blob;
mod growing;
mod held;
mod index;
mod prune;
mod read;
pub(super) mod temp;
mod unpack;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{DirBuilder, File},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use oci_spec::image::ImageConfiguration;
use rustix::fs::{FlockOperation, flock};

pub use blob::{BlobError, BlobWriter};
pub use growing::Growing;
pub use held::Held;
pub use prune::Pruned;
pub use unpack::UnpackError;

use super::{
    archive::{self, LoadError, Loaded},
    digest::Digest,
    document::{DocumentError, Image},
    limits::Limits,
    reference::Reference,
};
use blob::Blobs;
use index::Index;
use temp::Temp;

/// Shortest beginning of an image id that [`ImageStore::resolve`] accepts.
const ID_PREFIX_CHARS_MIN: usize = 4;

/// The images of one node. Shared between threads by reference; one process at a time may have it open.
#[derive(Debug)]
pub struct ImageStore {
    root: PathBuf,
    limits: Limits,
    blobs: Arc<Blobs>,
    temp: Temp,
    index: Mutex<Index>,
    /// Images that are being fetched, and by how many.
    held: Mutex<BTreeMap<Digest, usize>>,
    unpacking: Mutex<()>,
    _lock: File,
}

/// Why the store refused or failed. It is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk failed, or the store's files are not accessible.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("the image store {} is in use by another process; stop it or choose another data directory", .0.display())]
    InUse(PathBuf),
    /// `index.json` is there but cannot be read.
    #[error("cannot read the image index {}; move it away to start with an empty one, then load the images again", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// No image has this manifest digest.
    #[error("no image {0} in this store")]
    Unknown(Digest),
    /// Some blobs of the image are not here yet.
    #[error("image {digest} is incomplete: {missing} blobs are missing")]
    Incomplete {
        /// The image's manifest.
        digest: Digest,
        /// How many blobs it still needs, as far as is known.
        missing: usize,
    },
    /// A reference pins another digest than that of the image it should name.
    #[error("{reference} cannot name image {digest}: it pins another digest")]
    Pinned {
        /// The name.
        reference: Box<Reference>,
        /// The image's manifest.
        digest: Digest,
    },
    /// A manifest or configuration is not usable.
    #[error("image {digest} cannot be used")]
    Document {
        /// The blob that holds it.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// The digest is that of an index without an image for this machine.
    #[error("image {digest} is not for {wanted}, it is for {found}")]
    Platform {
        /// The index.
        digest: Digest,
        /// This machine's platform.
        wanted: String,
        /// Those of the index.
        found: String,
    },
}

/// One line of an image list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The digest of the configuration: Docker's image id.
    pub config_digest: Digest,
    /// The names it goes by.
    pub references: BTreeSet<Reference>,
    /// Digests of the indexes by which it goes too.
    pub indexes: BTreeSet<Digest>,
    /// When it was made, as its configuration says (RFC 3339).
    pub created: Option<String>,
    /// Bytes of configuration and layers as stored.
    pub size_bytes: u64,
    /// The processor it is for, in Go's words (`amd64`, `arm64`).
    pub architecture: String,
    /// The operating system it is for.
    pub os: String,
    /// The labels of its configuration are here, for filters.
    pub config: ImageConfiguration,
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { what, path: path.to_owned(), source }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves the index as it was: changes are made to a copy.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ImageStore {
    /// Opens the store at `root` with default limits, and makes it if it is not there.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it, [`StoreError::Index`] if its index is damaged,
    /// [`StoreError::Io`] otherwise.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, Limits::default())
    }

    /// As [`ImageStore::open`], with limits of the caller's choice.
    ///
    /// # Errors
    /// As [`ImageStore::open`].
    pub fn open_with(root: &Path, limits: Limits) -> Result<Self, StoreError> {
        // Layers hold set-user-id programs, which the users of this machine must not reach.
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(root).map_err(io_error("create", root))?;
        let lock = lock(&root.join("lock"))?;
        let path = root.join("tmp");
        let temp = Temp::open(path.clone()).map_err(io_error("empty", &path))?;
        let path = root.join("blobs/sha256");
        let blobs = Arc::new(Blobs::open(path.clone()).map_err(io_error("create", &path))?);
        unpack::open_layers(root, &temp)?;
        let path = root.join("index.json");
        let index = Index::read(&path).map_err(|source| StoreError::Index { path, source })?;
        Ok(Self {
            root: root.to_owned(),
            limits,
            blobs,
            temp,
            index: Mutex::new(index),
            held: Mutex::default(),
            unpacking: Mutex::new(()),
            _lock: lock,
        })
    }

    /// Returns the directory that it is in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the limits that the store was opened with.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Reads an archive (`docker save` or OCI layout, perhaps gzipped) and registers the images in it.
    ///
    /// # Errors
    /// [`LoadError`] says what is wrong with the archive. Nothing of it is left then.
    pub fn load(&self, archive: impl Read) -> Result<Vec<Loaded>, LoadError> {
        let _activity = self.blobs.activity.read().unwrap_or_else(PoisonError::into_inner);
        let images = archive::read(archive, &self.blobs, &self.temp, &self.limits)?;
        self.change(|index| {
            for image in &images {
                index.register(image.loaded.digest, image.config, image.loaded.references.iter().cloned().collect());
            }
        })?;
        Ok(images.into_iter().map(|image| image.loaded).collect())
    }

    /// Returns all images, in the order of their digests. Images whose documents have become unreadable are left out,
    /// with a warning.
    pub fn list(&self) -> Vec<ImageSummary> {
        let digests: Vec<Digest> = locked(&self.index).images.keys().copied().collect();
        let images = digests.iter().filter_map(|digest| match self.image(digest) {
            Ok(image) => Some(image),
            Err(error) => {
                tracing::warn!(%digest, error = &error as &dyn std::error::Error, "image left out of the list");
                None
            }
        });
        images.map(ImageSummary::from).collect()
    }

    /// Finds the image that `text` names: a reference, a digest of a manifest or configuration with or without
    /// `sha256:`, or at least four digits of one that no other image shares. Returns the digest of its manifest.
    pub fn resolve(&self, text: &str) -> Option<Digest> {
        locked(&self.index).resolve(text)
    }

    /// Returns the index of several platforms by which the image with this manifest was fetched, or else the manifest.
    pub fn index_of(&self, digest: &Digest) -> Digest {
        let index = locked(&self.index);
        index.images.get(digest).and_then(|record| record.indexes.last().copied()).unwrap_or(*digest)
    }

    /// Makes an image whose blobs are all here one of the store's, under `reference` if one is given. `digest` names
    /// its manifest, or an index that leads to it; it then goes by the index's digest too.
    ///
    /// # Errors
    /// As [`ImageStore::image`]; [`StoreError::Pinned`] if the reference pins another digest.
    pub fn register(&self, digest: Digest, reference: Option<Reference>) -> Result<(), StoreError> {
        let image = self.image(&digest)?;
        let references = reference.map(|reference| pinned(reference, digest)).transpose()?;
        let indexes = BTreeSet::from_iter((digest != image.digest).then_some(digest));
        self.change(|index| {
            index.register(image.digest, image.config_digest, references.into_iter().collect());
            index.add_indexes(image.digest, indexes);
        })
    }

    /// Gives an image one more name, taking it from the image that had it.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if the image is not registered, [`StoreError::Pinned`] if the reference pins another
    /// digest, [`StoreError::Io`] if the disk fails.
    pub fn tag(&self, digest: &Digest, reference: Reference) -> Result<(), StoreError> {
        let reference = pinned(reference, *digest)?;
        let known = {
            let index = locked(&self.index);
            let manifest = index.by_digest(digest);
            manifest.and_then(|manifest| Some((manifest, index.images.get(&manifest)?.config)))
        };
        let (manifest, config) = known.ok_or(StoreError::Unknown(*digest))?;
        self.change(|index| index.register(manifest, config, BTreeSet::from([reference])))
    }

    /// Takes a name away; the image stays until it is removed or pruned. Returns whether the name was there.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the disk fails.
    pub fn untag(&self, reference: &Reference) -> Result<bool, StoreError> {
        self.change(|index| index.untag(reference))
    }

    /// Takes the image with this manifest and all its names out of the index. [`ImageStore::prune`] reclaims its space.
    /// Returns whether it was there.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the disk fails.
    pub fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.change(|index| index.images.remove(digest).is_some())
    }

    /// Returns whether the blob is here.
    pub fn contains_blob(&self, digest: &Digest) -> bool {
        self.blobs.contains(digest)
    }

    /// Opens a blob and returns it with its length in bytes, or `None` if it is not here (or cannot be read, which is
    /// logged).
    pub fn open_blob(&self, digest: &Digest) -> Option<(File, u64)> {
        self.blobs.open_blob(digest).unwrap_or_else(|error| {
            tracing::warn!(%digest, %error, "cannot open a blob");
            None
        })
    }

    /// Begins to take a blob from a peer. More than `bytes_max` bytes are refused.
    ///
    /// # Errors
    /// [`BlobError::Io`] if no temporary file can be made.
    pub fn writer(&self, expected: Digest, bytes_max: u64) -> Result<BlobWriter, BlobError> {
        BlobWriter::new(Arc::clone(&self.blobs), &self.temp, expected, bytes_max)
    }

    /// Applies a change to a copy, and takes it over once it is on disk.
    fn change<T>(&self, apply: impl FnOnce(&mut Index) -> T) -> Result<T, StoreError> {
        let mut index = locked(&self.index);
        let mut changed = index.clone();
        let result = apply(&mut changed);
        if changed != *index {
            let path = self.root.join("index.json");
            changed.write(&path, &self.temp).map_err(io_error("write", &path))?;
            *index = changed;
        }
        Ok(result)
    }
}

/// Drops the digest of a reference that has a tag too, once it is known to be the right one.
fn pinned(reference: Reference, digest: Digest) -> Result<Reference, StoreError> {
    if reference.digest().is_some_and(|pinned| pinned != digest) {
        return Err(StoreError::Pinned { reference: Box::new(reference), digest });
    }
    Ok(reference.without_digest().unwrap_or(reference))
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = File::options().write(true).create(true).truncate(false).open(path).map_err(io_error("open", path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(path.parent().unwrap_or(path).to_owned())),
        Err(errno) => Err(io_error("lock", path)(errno.into())),
    }
}

impl From<Image> for ImageSummary {
    fn from(image: Image) -> Self {
        Self {
            digest: image.digest,
            config_digest: image.config_digest,
            references: image.references,
            indexes: image.indexes,
            created: image.config.created().clone(),
            size_bytes: image.size_bytes,
            architecture: image.config.architecture().to_string(),
            os: image.config.os().to_string(),
            config: image.config,
        }
    }
}
