//! The OCI image layout: `index.json` names manifests, and indexes of manifests for several platforms, by digest.
//!
//! Input: the spooled files. Output: the images for this machine's platform, with the names that annotations or an
//! accompanying `manifest.json` give them. (OCI image specification, image layout and image index.)

use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor as OciDescriptor, ImageIndex};

use super::{LoadError, Plan, docker, parse_reference};
use crate::image::{
    document::{Manifest, digest_of, parse_json},
    platform::{self, annotation, fits, is_image, is_index},
    reference::Reference,
};

pub(super) const INDEX: &str = "index.json";
/// The full name, as containerd and Docker write it.
const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";
/// `index.json`, an index for several platforms, and one more.
const DEPTH_MAX: usize = 3;

/// Adds all images of the archive that can run here.
pub(super) fn plan(plan: &mut Plan<'_>) -> Result<(), LoadError> {
    let document = plan.spool.by_path(INDEX)?.document(INDEX, plan.limits.document_bytes_max)?;
    let index: ImageIndex =
        parse_json(INDEX, &document).map_err(|source| LoadError::Document { path: INDEX.to_owned(), source })?;
    if index.manifests().len() > plan.limits.archive_images_max {
        return Err(LoadError::Images { max: plan.limits.archive_images_max });
    }
    let tags = docker::entries(plan)?;
    let mut foreign = Vec::new();
    for descriptor in index.manifests().iter().filter(|descriptor| is_image(descriptor)) {
        if fits(descriptor) {
            let references = annotated_references(descriptor)?;
            add(plan, descriptor, references, &tags, &mut foreign, 1)?;
        } else {
            foreign.extend(platform::shown(descriptor));
        }
    }
    if !plan.images.is_empty() {
        return Ok(());
    }
    if foreign.is_empty() {
        return Err(LoadError::NoImage);
    }
    Err(LoadError::Platform { wanted: platform::host(), found: platform::listed(foreign) })
}

/// Adds the image that a descriptor names, directly or by an index of which one part fits this machine.
fn add(
    plan: &mut Plan<'_>,
    descriptor: &OciDescriptor,
    mut references: Vec<Reference>,
    tags: &[docker::ImageEntry],
    foreign: &mut Vec<String>,
    depth: usize,
) -> Result<(), LoadError> {
    let digest =
        digest_of("index", descriptor).map_err(|source| LoadError::Document { path: INDEX.to_owned(), source })?;
    let at = |source| LoadError::Document { path: format!("blob {digest}"), source };
    let document = plan.document("manifest", &digest)?;
    if !is_index(&document).map_err(at)? {
        let manifest = Manifest::parse(&document, plan.limits).map_err(at)?;
        let named = docker::references_of(plan, tags, &manifest.config.digest)?;
        references.extend(named);
        return plan.add_image(digest, &document, references);
    }
    if depth >= DEPTH_MAX {
        return Err(LoadError::Images { max: plan.limits.archive_images_max });
    }
    let index: ImageIndex = parse_json("image index", &document).map_err(at)?;
    match platform::choose(&index) {
        Some(part) => add(plan, part, references, tags, foreign, depth + 1),
        None => {
            foreign.extend(index.manifests().iter().filter_map(platform::shown));
            Ok(())
        }
    }
}

/// The full name if there is one. Otherwise the OCI name, which may be a whole reference, a repository, or only a tag:
/// `latest` alone is taken for a tag, which names nothing by itself, and so is whatever is no reference.
fn annotated_references(descriptor: &OciDescriptor) -> Result<Vec<Reference>, LoadError> {
    if let Some(name) = annotation(descriptor, ANNOTATION_IMAGE_NAME) {
        return Ok(without_digest(parse_reference(name)?));
    }
    let name = annotation(descriptor, ANNOTATION_REF_NAME).filter(|name| *name != "latest");
    Ok(name.and_then(|name| name.parse().ok()).map(without_digest).unwrap_or_default())
}

/// A name in an archive cannot pin a digest: the manifest that it had at its registry need not be the one here.
fn without_digest(reference: Reference) -> Vec<Reference> {
    reference.without_digest().into_iter().collect()
}
