//! Which image a name means: here, at another node, or else at its registry, so that none must be up.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use bollard::models::{DistributionInspect, OciDescriptor};
use shoal_cluster::intent::service::ImageRef;
use shoal_runtime::image::registry::Login;
use shoal_runtime::image::{Digest, Reference};

use super::error::{ApiError, shown};
use super::images::login;
use super::params::Segment;
use super::{NodeHandle, PullError};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// `GET /distribution/{name}/json`: Docker's client asks so to pin an image before it creates a service.
pub(super) async fn inspect(
    State(node): State<NodeHandle>,
    Segment(rest): Segment,
    headers: HeaderMap,
) -> Result<Json<DistributionInspect>, ApiError> {
    let name = rest.strip_suffix("/json").ok_or(ApiError::NoSuchPath)?;
    let reference: Reference = name.parse().map_err(|error| invalid(name, &error))?;
    let digest = match reference.digest().filter(|digest| is_known(&node, *digest)) {
        Some(digest) => digest,
        None => find(&node, name, reference, login(&headers)?).await?,
    };
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
pub(super) async fn pin(
    node: &NodeHandle,
    image: ImageRef,
    present: Option<&ImageRef>,
    login: Option<Login>,
) -> Result<ImageRef, ApiError> {
    let unchanged = present.is_some_and(|present| image.digest.is_some() && present.digest == image.digest);
    let is_here = |digest: &String| digest.parse().is_ok_and(|digest| is_known(node, digest));
    if unchanged || image.digest.as_ref().is_some_and(is_here) {
        return Ok(image);
    }
    let text = super::spec::image_text(&image);
    let reference: Reference = text.parse().map_err(|error| invalid(&text, &error))?;
    let digest = find(node, &text, reference.clone(), login.clone()).await?;
    if login.is_some() && !is_known(node, digest) {
        // The operator's login is good for this request only: this node fetches with it, the others from this node.
        let (sources, changed) = (Arc::clone(&node.sources), Arc::clone(&node.images_changed));
        tokio::spawn(async move {
            match sources.pull(reference, login, Arc::new(|_| {})).await {
                Ok(_) => changed.notify_one(),
                Err(error) => tracing::warn!(%error, "cannot fetch the image of a service with its operator's login"),
            }
        });
    }
    Ok(ImageRef { digest: Some(digest.to_string()), ..image })
}

/// Finds the manifest or index that a name means: here first, else at the nodes that can be asked, else at its registry.
async fn find(node: &NodeHandle, name: &str, reference: Reference, login: Option<Login>) -> Result<Digest, ApiError> {
    if let Some(digest) = node.images.resolve(name) {
        // Of several platforms, the whole: each node follows it to its own.
        return Ok(reference.digest().unwrap_or_else(|| node.images.index_of(&digest)));
    }
    node.sources.find(reference, login).await.map_err(|error| match error {
        PullError::Denied(_) => ApiError::from(error),
        PullError::NotFound(why) | PullError::Failed(why) => nowhere(name, &why),
    })
}

/// Tells whether any node that is up has the image with this manifest.
fn is_known(node: &NodeHandle, digest: Digest) -> bool {
    let views = node.views();
    // Nodes tell of `reference@digest`, or of the digest alone.
    let text = digest.to_string();
    let at_a_node = views.images.iter().any(|(image, nodes)| image.ends_with(&text) && !nodes.is_empty());
    at_a_node || node.images.resolve(&digest.to_string()).is_some()
}

fn nowhere(name: &str, why: &str) -> ApiError {
    let name = shown(name);
    ApiError::NotFound(format!(
        "image {name:?} is on no node of this shoal ({why}): load it with \"shoal image load FILE\" (an archive made by docker save), or pull it"
    ))
}

fn invalid(name: &str, error: &dyn std::error::Error) -> ApiError {
    ApiError::BadRequest(format!("invalid image name {:?}: {error}", shown(name)))
}
