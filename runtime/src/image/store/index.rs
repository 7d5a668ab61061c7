//! The index: which manifests are images of this store, and by which names they go.
//!
//! Input and output: `index.json`, replaced atomically and durably at each change. Names and digests only; everything
//! else is in the blobs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{blob::sync_dir, temp::Temp};
use crate::image::{digest::Digest, reference::Reference};

const VERSION: u32 = 1;
/// Far above what the names of any machine's images need.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// One image of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) config: Digest,
    pub(super) references: BTreeSet<Reference>,
    /// Indexes of several platforms by which the image was fetched: it goes by their digests too.
    pub(super) indexes: BTreeSet<Digest>,
}

/// Images by the digest of their manifest. A reference belongs to at most one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) images: BTreeMap<Digest, Record>,
}

#[derive(Serialize, Deserialize)]
struct IndexFile {
    version: u32,
    images: Vec<ImageEntry>,
}

#[derive(Serialize, Deserialize)]
struct ImageEntry {
    manifest: Digest,
    config: Digest,
    references: BTreeSet<Reference>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    indexes: BTreeSet<Digest>,
}

impl Index {
    /// Reads the file; an absent one is an empty index.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return Err(io::ErrorKind::FileTooLarge.into()),
            Ok(_) => {}
        }
        let file: IndexFile = serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from)?;
        if file.version != VERSION {
            let message = format!("its version is {}, this binary reads version {VERSION}", file.version);
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        let mut index = Self::default();
        for ImageEntry { manifest, config, references, indexes } in file.images {
            index.register(manifest, config, references);
            index.add_indexes(manifest, indexes);
        }
        Ok(index)
    }

    /// Replaces the file. After an error the old one is still there.
    pub(super) fn write(&self, path: &Path, temp: &Temp) -> io::Result<()> {
        let images = self.images.iter().map(|(manifest, record)| ImageEntry {
            manifest: *manifest,
            config: record.config,
            references: record.references.clone(),
            indexes: record.indexes.clone(),
        });
        let document = serde_json::to_vec_pretty(&IndexFile { version: VERSION, images: images.collect() })?;
        let (guard, mut file): (_, File) = temp.file()?;
        file.write_all(&document)?;
        file.sync_all()?;
        guard.keep(path)?;
        path.parent().map_or(Ok(()), sync_dir)
    }

    /// Adds an image or more names of one; names move from the images that had them.
    pub(super) fn register(&mut self, manifest: Digest, config: Digest, references: BTreeSet<Reference>) {
        for record in self.images.values_mut() {
            record.references.retain(|reference| !references.contains(reference));
        }
        let record = self.images.entry(manifest).or_insert_with(|| Record {
            config,
            references: BTreeSet::new(),
            indexes: BTreeSet::new(),
        });
        record.references.extend(references);
    }

    /// Adds digests of indexes by which an image goes.
    pub(super) fn add_indexes(&mut self, manifest: Digest, indexes: BTreeSet<Digest>) {
        if let Some(record) = self.images.get_mut(&manifest) {
            record.indexes.extend(indexes);
        }
    }

    /// Returns the manifest of the image that goes by this digest: its own, or that of an index.
    pub(super) fn by_digest(&self, digest: &Digest) -> Option<Digest> {
        if self.images.contains_key(digest) {
            return Some(*digest);
        }
        self.images.iter().find(|(_, record)| record.indexes.contains(digest)).map(|(manifest, _)| *manifest)
    }

    /// Takes a name away. Returns whether it was there.
    pub(super) fn untag(&mut self, reference: &Reference) -> bool {
        self.images.values_mut().any(|record| record.references.remove(reference))
    }

    /// Finds an image by digest, name, or a unique beginning of an id. See [`super::ImageStore::resolve`].
    pub(super) fn resolve(&self, text: &str) -> Option<Digest> {
        if let Ok(reference) = text.parse::<Reference>() {
            if let Some(digest) = reference.digest() {
                return self.by_digest(&digest);
            }
            let named = self.images.iter().find(|(_, record)| record.references.contains(&reference));
            if let Some((manifest, _)) = named {
                return Some(*manifest);
            }
        }
        self.resolve_id(text.strip_prefix("sha256:").unwrap_or(text))
    }

    fn resolve_id(&self, prefix: &str) -> Option<Digest> {
        let is_hex = prefix.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if prefix.len() < super::ID_PREFIX_CHARS_MIN || prefix.len() > 64 || !is_hex {
            return None;
        }
        let matches = |digest: &Digest| digest.hex().starts_with(prefix);
        let mut found = self.images.iter().filter(|(manifest, record)| {
            matches(manifest) || matches(&record.config) || record.indexes.iter().any(matches)
        });
        let (manifest, record) = found.next()?;
        // Several manifests of one configuration are the same image, packed differently.
        found.all(|(_, other)| other.config == record.config).then_some(*manifest)
    }
}
