//! Layer directories: each layer is unpacked once and shared by all images that have it.
//!
//! Input: an image whose blobs are here. Output: directories for overlayfs, the lowest first. They are a cache: not
//! synced, and thrown away when the machine was restarted since, because a power failure may have emptied their files.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::PoisonError,
};

use super::{ImageStore, StoreError, io_error, locked, temp::Temp};
use crate::image::{
    digest::{Digest, Hasher},
    document::Layer,
    layer::{self, LayerError},
};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why an image could not be unpacked. Layers that were finished before stay.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The image is not complete, or the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer is malformed, hostile, or does not fit.
    #[error("cannot unpack layer {diff_id}")]
    Layer {
        /// The layer.
        diff_id: Digest,
        /// What is wrong with it.
        #[source]
        source: LayerError,
    },
}

/// Makes the directory for layers, and empties it if the machine was restarted since it was filled.
pub(super) fn open_layers(root: &Path, temp: &Temp) -> Result<(), StoreError> {
    let layers = root.join("layers");
    let mark = root.join("layers.boot");
    fs::create_dir_all(&layers).map_err(io_error("create", &layers))?;
    // Without /proc nothing can be known, and containers that still run may stand on these layers.
    let Ok(boot) = fs::read(BOOT_ID) else { return Ok(()) };
    match fs::read(&mark) {
        Ok(last) if last == boot => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("read", &mark)(error)),
        Ok(_) | Err(_) => {}
    }
    for entry in fs::read_dir(&layers).map_err(io_error("list", &layers))? {
        let path = entry.map_err(io_error("list", &layers))?.path();
        temp.discard(&path).map_err(io_error("remove", &path))?;
    }
    fs::write(&mark, boot).map_err(io_error("write", &mark))
}

/// The directory's name begins with this; see [`ImageStore::unpack`] for the rest.
pub(super) fn layer_of(name: &str) -> Option<Digest> {
    Digest::from_hex(name.split('-').next()?).ok()
}

impl ImageStore {
    /// Unpacks the image's layers as far as they are not yet, and returns their directories, the lowest first: stacked
    /// by overlayfs they are its root file system. A layer that comes twice is given once, where it is highest.
    ///
    /// A layer is `layers/<diff id>`. One that needs the directories below it, because it leaves some out that its
    /// files are in, is `layers/<diff id>-<chain>` instead: it copies their owner and mode, so it is only good there.
    ///
    /// # Errors
    /// [`UnpackError::Store`] if the image is incomplete, [`UnpackError::Layer`] if a layer is not what it should be.
    /// Needs root: layers hold foreign owners, devices and overlay attributes.
    pub fn unpack(&self, digest: &Digest) -> Result<Vec<PathBuf>, UnpackError> {
        let _activity = self.blobs.activity.read().unwrap_or_else(PoisonError::into_inner);
        let image = self.image(digest)?;
        let mut directories: Vec<PathBuf> = Vec::new();
        let mut chain = Hasher::default();
        for layer in &image.layers {
            chain.update(layer.diff_id.as_bytes());
            let directory = self.unpack_layer(layer, &chain.clone().finish(), &directories)?;
            // overlayfs refuses a directory that comes twice; the upper one repeats all that the lower one does.
            directories.retain(|other| *other != directory);
            directories.push(directory);
        }
        Ok(directories)
    }

    fn unpack_layer(&self, layer: &Layer, chain: &Digest, lowers: &[PathBuf]) -> Result<PathBuf, UnpackError> {
        let layers = self.root.join("layers");
        let shared = layers.join(layer.diff_id.hex());
        let stacked = layers.join(format!("{}-{}", layer.diff_id.hex(), &chain.hex()[..16]));
        let finished = || [&shared, &stacked].into_iter().find(|path| path.is_dir()).cloned();
        if let Some(path) = finished() {
            return Ok(path);
        }
        let _unpacking = locked(&self.unpacking);
        if let Some(path) = finished() {
            return Ok(path);
        }
        let temp = self.temp.dir().map_err(io_error("create a directory in", &self.root.join("tmp")))?;
        let blob = self.layer_blob(layer)?;
        let unpacked = layer::unpack(blob, temp.path(), layer.diff_id, lowers, &self.limits)
            .map_err(|source| UnpackError::Layer { diff_id: layer.diff_id, source })?;
        let path = if unpacked.borrowed_directories == 0 { shared } else { stacked };
        temp.keep(&path).map_err(io_error("create", &path))?;
        Ok(path)
    }

    fn layer_blob(&self, layer: &Layer) -> Result<impl Read, StoreError> {
        let digest = layer.blob.digest;
        let path = self.root.join("blobs/sha256").join(digest.hex());
        let blob = self.blobs.open_blob(&digest).map_err(io_error("open", &path))?;
        Ok(blob.ok_or(StoreError::Incomplete { digest, missing: 1 })?.0)
    }
}
