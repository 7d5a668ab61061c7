//! Saving: images as one archive, in the layout of `docker save` since version 25.
//!
//! Input: images of the store with the name each is to have. Output: a tar that is an OCI layout and has a `manifest.json`
//! too, so that old and new Docker, OCI tools and shoal itself can load it. The same images give the same bytes.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
};

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::{
    digest::Digest,
    reference::Reference,
    store::{ImageStore, StoreError},
};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Why an archive was not written to its end.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// An image is not complete, or the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive cannot be written, or a blob not be read.
    #[error("cannot write the archive")]
    Io(#[from] io::Error),
}

impl ImageStore {
    /// Writes images as one archive. Each is named by its digest, and by the reference if one is given.
    ///
    /// # Errors
    /// [`SaveError`]; what was written until then is no whole archive.
    pub fn save(&self, images: &[(Digest, Option<Reference>)], archive: impl Write) -> Result<(), SaveError> {
        let mut tar = Builder::new(archive);
        let (mut manifests, mut entries, mut blobs) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (digest, reference) in images {
            let image = self.image(digest)?;
            let parts = image.layers.iter().map(|layer| layer.blob.digest);
            blobs.extend(parts.chain([image.digest, image.config_digest]));
            manifests.push(self.descriptor(&image.digest, reference.as_ref())?);
            entries.push(json!({
                "Config": path(&image.config_digest),
                "RepoTags": reference.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "Layers": image.layers.iter().map(|layer| path(&layer.blob.digest)).collect::<Vec<_>>(),
            }));
        }
        directory(&mut tar, "blobs/")?;
        directory(&mut tar, "blobs/sha256/")?;
        for digest in blobs {
            let (blob, bytes) = self.blob(&digest)?;
            append(&mut tar, &path(&digest), bytes, blob)?;
        }
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        for (name, document) in [
            ("index.json", index),
            ("manifest.json", Value::from(entries)),
            ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" })),
        ] {
            let bytes = document.to_string().into_bytes();
            append(&mut tar, name, bytes.len() as u64, &bytes[..])?;
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }

    fn blob(&self, digest: &Digest) -> Result<(impl Read + use<>, u64), SaveError> {
        let found = self.open_blob(digest).ok_or(StoreError::Incomplete { digest: *digest, missing: 1 })?;
        Ok(found)
    }

    fn descriptor(&self, digest: &Digest, reference: Option<&Reference>) -> Result<Value, SaveError> {
        let (_, bytes) = self.blob(digest)?;
        let mut descriptor = json!({ "mediaType": MANIFEST_TYPE, "digest": digest, "size": bytes });
        if let Some(reference) = reference {
            descriptor["annotations"] = json!({
                "io.containerd.image.name": reference.canonical(),
                "org.opencontainers.image.ref.name": reference.tag(),
            });
        }
        Ok(descriptor)
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn header(kind: EntryType, mode: u32, bytes: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header
}

fn directory(tar: &mut Builder<impl Write>, path: &str) -> io::Result<()> {
    tar.append_data(&mut header(EntryType::Directory, 0o755, 0), path, io::empty())
}

fn append(tar: &mut Builder<impl Write>, path: &str, bytes: u64, content: impl Read) -> io::Result<()> {
    tar.append_data(&mut header(EntryType::Regular, 0o444, bytes), path, content.take(bytes))
}
