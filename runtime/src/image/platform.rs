//! Platforms: which image of an index is for this machine.
//!
//! Input: an index, by which one name stands for images of several processors and systems. Output: the part to use
//! here, or what there is instead. (OCI image specification, image index.)

use oci_spec::image::{Arch, Descriptor as OciDescriptor, ImageIndex, Os};
use serde::Deserialize;

use super::document::{DocumentError, parse_json};

/// Marks attestations, which BuildKit puts beside the images they speak of.
const ANNOTATION_REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Platforms that a message names at most.
const LISTED_MAX: usize = 20;

/// Tells a manifest from an index; media types are optional in both.
#[derive(Deserialize)]
struct Shape {
    manifests: Option<serde::de::IgnoredAny>,
}

/// Tells whether a document is an index of manifests rather than a manifest.
pub(super) fn is_index(document: &[u8]) -> Result<bool, DocumentError> {
    Ok(parse_json::<Shape>("manifest", document)?.manifests.is_some())
}

/// Returns the part of an index that can run here: one that says so before one that says nothing.
pub(super) fn choose(index: &ImageIndex) -> Option<&OciDescriptor> {
    let images = || index.manifests().iter().filter(|part| is_image(part));
    images().find(|part| part.platform().is_some() && fits(part)).or_else(|| images().find(|part| fits(part)))
}

pub(super) fn is_image(descriptor: &OciDescriptor) -> bool {
    annotation(descriptor, ANNOTATION_REFERENCE_TYPE).is_none() && descriptor.artifact_type().is_none()
}

/// A descriptor without a platform may be for any.
pub(super) fn fits(descriptor: &OciDescriptor) -> bool {
    let platform = descriptor.platform().as_ref();
    platform.is_none_or(|platform| *platform.architecture() == Arch::default() && *platform.os() == Os::Linux)
}

/// Returns this machine's platform in Go's words.
pub(super) fn host() -> String {
    format!("{}/{}", Os::Linux, Arch::default())
}

/// Returns a descriptor's platform for a message, if it is an image and has one.
pub(super) fn shown(descriptor: &OciDescriptor) -> Option<String> {
    let platform = descriptor.platform().as_ref().filter(|_| is_image(descriptor))?;
    Some(format!("{}/{}", platform.os(), platform.architecture()).chars().take(60).collect())
}

/// Returns platforms as one text, each once.
pub(super) fn listed(mut platforms: Vec<String>) -> String {
    platforms.sort();
    platforms.dedup();
    platforms.truncate(LISTED_MAX);
    platforms.join(", ")
}

pub(super) fn annotation<'a>(descriptor: &'a OciDescriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(key).map(String::as_str)
}
