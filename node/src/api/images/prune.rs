//! `POST /images/prune`: gives back the space of images that nobody needs.

use axum::Json;
use axum::extract::State;
use bollard::models::{ImageDeleteResponseItem, ImagePruneResponse};

use crate::api::NodeHandle;
use crate::api::error::ApiError;
use crate::api::filters::Filters;
use crate::api::params::Params;

/// Removes images without a name or, with `dangling=false`, all images that no service wants. What a service wants stays
/// even if no task of it is here: this node may be next in line.
pub(in crate::api) async fn prune(
    State(node): State<NodeHandle>,
    params: Params,
) -> Result<Json<ImagePruneResponse>, ApiError> {
    let filters = Filters::read(&params, &["dangling"])?;
    let only_dangling = filters.flag("dangling")?.unwrap_or(true);
    let wanted = super::wanted(&node);
    let pruned = super::blocking(&node, move |images| {
        let mut untagged = Vec::new();
        let unwanted = images.list().into_iter().filter(|image| !super::digests(image).any(|it| wanted.contains(it)));
        for image in unwanted.filter(|_| !only_dangling) {
            images.remove(&image.digest).map_err(|error| ApiError::internal(&error))?;
            untagged.extend(image.references.iter().map(ToString::to_string));
        }
        let pruned = images.prune(&wanted).map_err(|error| ApiError::internal(&error))?;
        Ok((untagged, pruned))
    });
    let (untagged, pruned) = pruned.await?;
    node.images_changed.notify_one();
    untagged.iter().for_each(|name| node.events.image("untag", name));
    pruned.blobs.iter().for_each(|blob| node.events.image("delete", &blob.to_string()));
    let untagged = untagged.into_iter().map(|name| ImageDeleteResponseItem { untagged: Some(name), deleted: None });
    let deleted =
        pruned.blobs.iter().map(|blob| ImageDeleteResponseItem { untagged: None, deleted: Some(blob.to_string()) });
    Ok(Json(ImagePruneResponse {
        images_deleted: Some(untagged.chain(deleted).collect()),
        space_reclaimed: Some(i64::try_from(pruned.bytes).unwrap_or(i64::MAX)),
    }))
}
