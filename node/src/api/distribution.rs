//! Which image a name means, here or at another node: there is no registry that must be up.

use axum::Json;
use axum::extract::State;
use bollard::models::{DistributionInspect, OciDescriptor};
use shoal_cluster::intent::service::ImageRef;
use shoal_runtime::image::{Digest, Reference};

use super::NodeHandle;
use super::error::{ApiError, shown};
use super::params::Segment;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// `GET /distribution/{name}/json`: Docker's client asks so to pin an image before it creates a service.
pub(super) async fn inspect(
    State(node): State<NodeHandle>,
    Segment(rest): Segment,
) -> Result<Json<DistributionInspect>, ApiError> {
    let name = rest.strip_suffix("/json").ok_or(ApiError::NoSuchPath)?;
    let reference: Reference = name.parse().map_err(|error| invalid(name, &error))?;
    let digest = match reference.digest() {
        Some(digest) => is_known(&node, digest).then_some(digest),
        None => find(&node, name, reference).await,
    };
    let digest = digest.ok_or_else(|| nowhere(name))?;
    let descriptor = OciDescriptor {
        media_type: Some(MANIFEST_TYPE.to_owned()),
        digest: Some(digest.to_string()),
        size: Some(node.images.open_blob(&digest).map_or(0, |(_, bytes)| i64::try_from(bytes).unwrap_or(i64::MAX))),
        ..OciDescriptor::default()
    };
    Ok(Json(DistributionInspect { descriptor, platforms: Vec::new() }))
}

/// Returns the image pinned to its manifest's digest, so that all nodes run the same bytes even if the name moves.
/// An image that stays as it is in `present` is not looked for again: the nodes that have it may be away.
pub(super) async fn pin(node: &NodeHandle, image: ImageRef, present: Option<&ImageRef>) -> Result<ImageRef, ApiError> {
    let Some(digest) = &image.digest else {
        let reference: Reference = image.reference.parse().map_err(|error| invalid(&image.reference, &error))?;
        let digest = find(node, &image.reference, reference).await.ok_or_else(|| nowhere(&image.reference))?;
        return Ok(ImageRef { digest: Some(digest.to_string()), ..image });
    };
    let unchanged = present.is_some_and(|present| present.digest.as_ref() == Some(digest));
    let known = unchanged || digest.parse().is_ok_and(|digest| is_known(node, digest));
    if known { Ok(image) } else { Err(nowhere(&super::spec::image_text(&image))) }
}

/// Finds the manifest that a name means: here first, else at the nodes that can be asked.
async fn find(node: &NodeHandle, name: &str, reference: Reference) -> Option<Digest> {
    match node.images.resolve(name) {
        Some(digest) => Some(digest),
        None => (node.find_image)(reference).await,
    }
}

/// Tells whether any node that is up has the image with this manifest.
fn is_known(node: &NodeHandle, digest: Digest) -> bool {
    let views = node.views();
    // Nodes tell of `reference@digest`, or of the digest alone.
    let text = digest.to_string();
    let at_a_node = views.images.iter().any(|(image, nodes)| image.ends_with(&text) && !nodes.is_empty());
    at_a_node || node.images.resolve(&digest.to_string()) == Some(digest)
}

fn nowhere(name: &str) -> ApiError {
    let name = shown(name);
    ApiError::NotFound(format!(
        "image {name:?} is on no node of this shoal: load it with \"shoal image load FILE\" (an archive made by docker save)"
    ))
}

fn invalid(name: &str, error: &dyn std::error::Error) -> ApiError {
    ApiError::BadRequest(format!("invalid image name {:?}: {error}", shown(name)))
}
