//! Layer directories: each layer is unpacked once and shared by all images that have it.
//!
//! Input: an image whose blobs are here. Output: directories for overlayfs, the lowest first. They are a cache: not
//! synced, and thrown away when the machine was restarted since, because a power failure may have emptied their files.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{
    ImageStore, StoreError, io_error, locked,
    temp::{Temp, TempDir},
};
use crate::image::{
    digest::{Digest, Hasher},
    document::Layer,
    layer::{self, Extracted, LayerError},
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
        let places = self.places(&image.layers);
        // The usual case, for which nobody waits.
        let ready: Option<Vec<PathBuf>> = places.iter().map(Place::finished).collect();
        let directories = match ready {
            Some(directories) => directories,
            None => self.unpack_missing(&places)?,
        };
        // overlayfs refuses a directory that comes twice; the upper one repeats all that the lower one does.
        let mut stacked: Vec<PathBuf> = Vec::new();
        for directory in directories {
            stacked.retain(|other| *other != directory);
            stacked.push(directory);
        }
        Ok(stacked)
    }

    /// Returns whether the image is here and nothing of it is left to unpack.
    pub fn is_unpacked(&self, digest: &Digest) -> bool {
        let image = self.image(digest);
        image.is_ok_and(|image| self.places(&image.layers).iter().all(|place| place.finished().is_some()))
    }

    fn places<'a>(&self, layers: &'a [Layer]) -> Vec<Place<'a>> {
        let directory = self.root.join("layers");
        let mut chain = Hasher::default();
        let place = |layer: &'a Layer| {
            chain.update(layer.diff_id.as_bytes());
            let (name, chain) = (layer.diff_id.hex(), chain.clone().finish().hex());
            let stacked = directory.join(format!("{name}-{}", &chain[..16]));
            Place { layer, shared: directory.join(name), stacked }
        };
        layers.iter().map(place).collect()
    }

    /// Fills layers side by side, then completes them from the lowest up, since each may need those below it.
    fn unpack_missing(&self, places: &[Place<'_>]) -> Result<Vec<PathBuf>, UnpackError> {
        let _unpacking = locked(&self.unpacking);
        let missing = places.iter().filter(|place| place.finished().is_none());
        let missing: BTreeMap<Digest, &Layer> = missing.map(|place| (place.layer.diff_id, place.layer)).collect();
        let mut filled = self.fill_all(missing.into_values().collect());
        let mut directories = Vec::new();
        for place in places {
            let directory = match place.finished() {
                Some(directory) => directory,
                None => {
                    let filled = filled.remove(&place.layer.diff_id).unwrap_or_else(|| self.fill(place.layer));
                    self.complete(place, filled?, &directories)?
                }
            };
            directories.push(directory);
        }
        Ok(directories)
    }

    /// One after the other on each processor: each has a thread that decompresses, too.
    fn fill_all(&self, layers: Vec<&Layer>) -> BTreeMap<Digest, Result<Filled, UnpackError>> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(layers.len());
        // The largest first, so that no worker begins a long one when the others are done.
        let mut queue = layers;
        queue.sort_by_key(|layer| layer.blob.size_bytes);
        let (queue, filled) = (Mutex::new(queue), Mutex::new(BTreeMap::new()));
        let work = || {
            loop {
                let Some(layer) = locked(&queue).pop() else { return };
                let result = self.fill(layer);
                locked(&filled).insert(layer.diff_id, result);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(work);
            }
            work();
        });
        filled.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, layer: &Layer) -> Result<Filled, UnpackError> {
        let temp = self.temp.dir().map_err(io_error("create a directory in", &self.root.join("tmp")))?;
        let blob = self.layer_blob(layer)?;
        let contents = layer::extract(blob, temp.path(), layer.diff_id, &self.limits)
            .map_err(|source| UnpackError::Layer { diff_id: layer.diff_id, source })?;
        Ok(Filled { temp, contents })
    }

    fn complete(&self, place: &Place<'_>, filled: Filled, lowers: &[PathBuf]) -> Result<PathBuf, UnpackError> {
        let unpacked = filled.contents.finish(lowers);
        let unpacked = unpacked.map_err(|source| UnpackError::Layer { diff_id: place.layer.diff_id, source })?;
        let path = if unpacked.borrowed_directories == 0 { &place.shared } else { &place.stacked };
        filled.temp.keep(path).map_err(io_error("create", path))?;
        Ok(path.clone())
    }

    fn layer_blob(&self, layer: &Layer) -> Result<File, StoreError> {
        let digest = layer.blob.digest;
        let path = self.root.join("blobs/sha256").join(digest.hex());
        let blob = self.blobs.open_blob(&digest).map_err(io_error("open", &path))?;
        Ok(blob.ok_or(StoreError::Incomplete { digest, missing: 1 })?.0)
    }
}

/// Where one layer of an image is, or will be.
struct Place<'a> {
    layer: &'a Layer,
    shared: PathBuf,
    stacked: PathBuf,
}

impl Place<'_> {
    fn finished(&self) -> Option<PathBuf> {
        [&self.shared, &self.stacked].into_iter().find(|path| path.is_dir()).cloned()
    }
}

/// A layer whose files are written.
struct Filled {
    temp: TempDir,
    contents: Extracted,
}
