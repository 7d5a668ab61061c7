//! The layout of `docker save` before version 25: `manifest.json`, one configuration per image, one tar per layer.
//!
//! Input: the spooled files. Output: images with an OCI manifest made for each, always the same for the same image, so
//! that nodes that load it separately name it alike.

use std::io::{Read, Write};

use oci_spec::image::{Descriptor as OciDescriptor, ImageManifestBuilder, MediaType, SCHEMA_VERSION, Sha256Digest};
use serde::Deserialize;

use super::{LoadError, Plan, parse_reference, spool::Spooled};
use crate::image::{
    digest::Digest,
    document::{DocumentError, parse_config, parse_json},
    reference::Reference,
    store::temp::Temp,
};

pub(super) const MANIFEST: &str = "manifest.json";

/// One image in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ImageEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Reads `manifest.json`; an archive without one has no entries.
pub(super) fn entries(plan: &Plan<'_>) -> Result<Vec<ImageEntry>, LoadError> {
    if !plan.spool.contains(MANIFEST) {
        return Ok(Vec::new());
    }
    let document = plan.spool.by_path(MANIFEST)?.document(MANIFEST, plan.limits.document_bytes_max)?;
    let entries: Vec<ImageEntry> =
        parse_json(MANIFEST, &document).map_err(|source| LoadError::Document { path: MANIFEST.to_owned(), source })?;
    if entries.len() > plan.limits.archive_images_max {
        return Err(LoadError::Images { max: plan.limits.archive_images_max });
    }
    Ok(entries)
}

/// The names that `entries` give to the image with this configuration. They may speak of images for other platforms
/// too, which were left out of the archive.
pub(super) fn references_of(
    plan: &Plan<'_>,
    entries: &[ImageEntry],
    config: &Digest,
) -> Result<Vec<Reference>, LoadError> {
    let is_of = |entry: &&ImageEntry| plan.spool.by_path(&entry.config).is_ok_and(|file| file.digest == *config);
    let references = entries.iter().filter(is_of).map(parse_tags).collect::<Result<Vec<_>, _>>()?;
    Ok(references.into_iter().flatten().collect())
}

/// Adds all images of the archive.
pub(super) fn plan(plan: &mut Plan<'_>, temp: &Temp) -> Result<(), LoadError> {
    let entries = entries(plan)?;
    if entries.is_empty() {
        return Err(LoadError::NoImage);
    }
    for entry in entries {
        let manifest = make_manifest(plan, &entry)?;
        let digest = Digest::of(&manifest);
        let (guard, mut file) = temp.file().map_err(LoadError::Io)?;
        file.write_all(&manifest).map_err(LoadError::Io)?;
        plan.made.insert(digest, (guard, manifest.len() as u64));
        plan.add_image(digest, &manifest, parse_tags(&entry)?)?;
    }
    Ok(())
}

fn parse_tags(entry: &ImageEntry) -> Result<Vec<Reference>, LoadError> {
    let tags = entry.repo_tags.iter().flatten().filter(|tag| *tag != "<none>:<none>");
    tags.map(|tag| parse_reference(tag)).collect()
}

fn make_manifest(plan: &Plan<'_>, entry: &ImageEntry) -> Result<Vec<u8>, LoadError> {
    let config = plan.spool.by_path(&entry.config)?;
    check_config_name(&entry.config, config)?;
    let document = config.document("image configuration", plan.limits.document_bytes_max)?;
    let at = |source| LoadError::Document { path: entry.config.clone(), source };
    let (_, diff_ids) = parse_config(&document).map_err(at)?;
    let paths = entry.layers.as_deref().unwrap_or_default();
    if paths.len() != diff_ids.len() {
        return Err(at(DocumentError::Mismatch { layers: paths.len(), diff_ids: diff_ids.len() }));
    }
    let mut layers = Vec::new();
    for (path, diff_id) in paths.iter().zip(&diff_ids) {
        let layer = plan.spool.by_path(path)?;
        layers.push(descriptor(layer_type(layer, path, diff_id)?, layer)?);
    }
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(MediaType::ImageConfig, config)?)
        .layers(layers)
        .build()
        .map_err(|error| LoadError::Io(std::io::Error::other(error)))?;
    serde_json::to_vec(&manifest).map_err(|error| LoadError::Io(error.into()))
}

/// Docker names the configuration by its digest, and other writers by anything.
fn check_config_name(path: &str, config: &Spooled) -> Result<(), LoadError> {
    let named = path.strip_suffix(".json").and_then(|name| Digest::from_hex(name).ok());
    match named {
        Some(expected) if expected != config.digest => {
            Err(LoadError::Digest { path: path.to_owned(), expected, found: config.digest })
        }
        Some(_) | None => Ok(()),
    }
}

/// An uncompressed layer must be what its diff id names; a gzipped one is checked when it is unpacked.
fn layer_type(layer: &Spooled, path: &str, diff_id: &Digest) -> Result<MediaType, LoadError> {
    if layer.digest == *diff_id {
        return Ok(MediaType::ImageLayer);
    }
    let mut magic = Vec::new();
    layer.open()?.take(2).read_to_end(&mut magic).map_err(LoadError::Io)?;
    if magic == [0x1f, 0x8b] {
        return Ok(MediaType::ImageLayerGzip);
    }
    Err(LoadError::Digest { path: path.chars().take(200).collect(), expected: *diff_id, found: layer.digest })
}

fn descriptor(media_type: MediaType, blob: &Spooled) -> Result<OciDescriptor, LoadError> {
    let digest: Sha256Digest = blob
        .digest
        .hex()
        .parse()
        .map_err(|error: oci_spec::OciSpecError| LoadError::Io(std::io::Error::other(error)))?;
    Ok(OciDescriptor::new(media_type, blob.bytes, digest))
}
