//! Images as Docker shows them.

use std::collections::BTreeSet;

use bollard::models::{ImageConfig, ImageInspect, ImageInspectRootFs, ImageSummary};
use serde_json::{Value, json};
use shoal_runtime::image::{Digest, Image, ImageSummary as Stored, Reference};

use crate::api::time::parse_rfc3339;

pub(super) fn summary(image: Stored) -> ImageSummary {
    let created = image.created.as_deref().and_then(parse_rfc3339).unwrap_or_default();
    ImageSummary {
        id: image.config_digest.to_string(),
        repo_tags: tags(&image.references),
        repo_digests: digests(&image.references, image.indexes.first().copied().unwrap_or(image.digest)),
        created: i64::try_from(created / 1_000).unwrap_or_default(),
        size: size(image.size_bytes),
        // Docker's words for "not counted".
        shared_size: -1,
        containers: -1,
        labels: image.config.labels_of_config().cloned().unwrap_or_default(),
        ..ImageSummary::default()
    }
}

pub(super) fn inspect(image: &Image) -> ImageInspect {
    let config = &image.config;
    let layers = image.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    ImageInspect {
        id: Some(image.config_digest.to_string()),
        repo_tags: Some(tags(&image.references)),
        repo_digests: Some(digests(&image.references, image.indexes.first().copied().unwrap_or(image.digest))),
        created: config.created().clone(),
        author: config.author().clone(),
        config: container_config(config.config().as_ref()),
        architecture: Some(config.architecture().to_string()),
        variant: config.variant().clone(),
        os: Some(config.os().to_string()),
        os_version: config.os_version().clone(),
        size: Some(size(image.size_bytes)),
        root_fs: Some(ImageInspectRootFs { typ: "layers".to_owned(), layers: Some(layers) }),
        ..ImageInspect::default()
    }
}

/// Returns an image's settings: OCI writes them as Docker does, so they are carried over as JSON.
fn container_config(config: Option<&impl serde::Serialize>) -> Option<ImageConfig> {
    serde_json::to_value(config?).and_then(serde_json::from_value).ok()
}

/// The lines of `docker history`.
pub(super) fn history(image: &Image) -> Vec<Value> {
    let mut sizes = image.layers.iter().map(|layer| layer.blob.size_bytes);
    let steps = image.config.history().iter().flatten().map(|step| {
        let created = step.created().as_deref().and_then(parse_rfc3339).unwrap_or_default() / 1_000;
        let size_bytes = if step.empty_layer() == Some(true) { 0 } else { sizes.next().unwrap_or_default() };
        json!({
            "Id": "<missing>", "Created": created, "CreatedBy": step.created_by(), "Tags": null, "Size": size_bytes,
            "Comment": step.comment().as_deref().unwrap_or_default(),
        })
    });
    let mut steps: Vec<Value> = steps.collect();
    if let Some(last) = steps.last_mut() {
        last["Id"] = image.config_digest.to_string().into();
        last["Tags"] = tags(&image.references).into();
    }
    // Docker's order: the newest first.
    steps.reverse();
    steps
}

fn tags(references: &BTreeSet<Reference>) -> Vec<String> {
    references.iter().filter(|reference| reference.tag().is_some()).map(ToString::to_string).collect()
}

/// Returns the image's repositories with its digest, each once.
fn digests(references: &BTreeSet<Reference>, digest: Digest) -> Vec<String> {
    let names: BTreeSet<String> = references.iter().map(Reference::familiar_name).collect();
    names.into_iter().map(|name| format!("{name}@{digest}")).collect()
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
