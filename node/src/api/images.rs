//! `/images`: this node's images.
//!
//! Names of images may contain slashes, so one route takes all that lies below `/images/` and looks at the end.

mod load;
mod show;

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bollard::models::{ImageDeleteResponseItem, ImageSummary};
use shoal_runtime::image::{Digest, ImageStore, Reference};

use super::NodeHandle;
use super::error::{ApiError, shown};
use super::filters::Filters;
use super::params::{Params, Segment};

pub(super) use load::load;

const FILTERS: &[&str] = &["reference", "dangling", "label"];

/// Runs a call of the image store, which blocks, where that is allowed.
async fn blocking<T, F>(node: &NodeHandle, call: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce(&ImageStore) -> Result<T, ApiError> + Send + 'static,
{
    let images = std::sync::Arc::clone(&node.images);
    let done = tokio::task::spawn_blocking(move || call(&images)).await;
    done.map_err(|error| ApiError::internal(&error))?
}

/// `GET /images/json`
pub(super) async fn list(State(node): State<NodeHandle>, params: Params) -> Result<Json<Vec<ImageSummary>>, ApiError> {
    let filters = Filters::read(&params, FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let all = blocking(&node, |images| Ok(images.list())).await?;
    let chosen = all.into_iter().map(show::summary).filter(|image| {
        let named = |wanted: &str| {
            let wanted = wanted.parse::<Reference>().map_or_else(|_| wanted.to_owned(), |wanted| wanted.to_string());
            image.repo_tags.contains(&wanted)
        };
        filters.any("reference", named)
            && dangling.is_none_or(|dangling| dangling == image.repo_tags.is_empty())
            && filters.labels("label", super::filters::in_map(&image.labels))
    });
    let mut chosen: Vec<ImageSummary> = chosen.collect();
    // Docker's order: the newest first.
    chosen.sort_by_key(|image| (std::cmp::Reverse(image.created), image.id.clone()));
    Ok(Json(chosen))
}

/// Everything below `/images/` that has a name in its path.
pub(super) async fn named(
    State(node): State<NodeHandle>,
    Segment(rest): Segment,
    params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    match (request.method(), rest.rsplit_once('/')) {
        (&Method::GET, Some((name, "json"))) => inspect(&node, name).await,
        (&Method::POST, Some((name, "tag"))) => tag(&node, name, &params).await,
        (&Method::DELETE, _) => remove(&node, &rest, params.flag("force")).await,
        (method, _) => Err(super::not_here::refusal(method, request.uri().path(), ApiError::NoSuchPath)),
    }
}

fn resolve(images: &ImageStore, name: &str) -> Result<Digest, ApiError> {
    images.resolve(name).ok_or_else(|| ApiError::NotFound(format!("No such image: {}", shown(name))))
}

async fn inspect(node: &NodeHandle, name: &str) -> Result<Response, ApiError> {
    let name = name.to_owned();
    let image = blocking(node, move |images| {
        let digest = resolve(images, &name)?;
        images.image(&digest).map_err(|error| ApiError::internal(&error))
    });
    Ok(Json(show::inspect(&image.await?)).into_response())
}

/// `POST /images/{name}/tag?repo=R&tag=T`
async fn tag(node: &NodeHandle, name: &str, params: &Params) -> Result<Response, ApiError> {
    let repository = params.text("repo").unwrap_or_default();
    let wanted = params.text("tag").map_or_else(|| repository.to_owned(), |tag| format!("{repository}:{tag}"));
    let reference: Reference = wanted
        .parse()
        .map_err(|error| ApiError::BadRequest(format!("invalid image name {:?}: {error}", shown(&wanted))))?;
    let name = name.to_owned();
    let tagged = blocking(node, move |images| {
        let digest = resolve(images, &name)?;
        images.tag(&digest, reference).map_err(|error| ApiError::Conflict(super::error::with_causes(&error)))
    });
    tagged.await?;
    node.images_changed.notify_one();
    Ok(StatusCode::CREATED.into_response())
}

/// Takes a name away, and the image with its last name. An image that a task here runs stays unless `force`d.
async fn remove(node: &NodeHandle, name: &str, force: bool) -> Result<Response, ApiError> {
    let in_use = in_use(node);
    let name = name.to_owned();
    let removed = blocking(node, move |images| remove_blocking(images, &name, &in_use, force)).await?;
    node.images_changed.notify_one();
    Ok(Json(removed).into_response())
}

fn remove_blocking(
    images: &ImageStore,
    name: &str,
    in_use: &BTreeSet<Digest>,
    force: bool,
) -> Result<Vec<ImageDeleteResponseItem>, ApiError> {
    let failed = |error: shoal_runtime::image::StoreError| ApiError::internal(&error);
    let digest = resolve(images, name)?;
    let references = images.list().into_iter().find(|image| image.digest == digest).map(|image| image.references);
    let references = references.unwrap_or_default();
    let named = name.parse::<Reference>().ok().filter(|reference| references.contains(reference));
    let untagged =
        |reference: &Reference| ImageDeleteResponseItem { untagged: Some(reference.to_string()), deleted: None };
    if let Some(reference) = named.filter(|_| references.len() > 1) {
        images.untag(&reference).map_err(failed)?;
        return Ok(vec![untagged(&reference)]);
    }
    if in_use.contains(&digest) && !force {
        let why = "a task on this node runs it: remove its service first, or force it";
        return Err(ApiError::Conflict(format!("conflict: unable to remove image {}: {why}", shown(name))));
    }
    images.remove(&digest).map_err(failed)?;
    let pruned = images.prune(in_use).map_err(failed)?;
    let blobs = pruned.blobs.iter().map(ToString::to_string);
    let deleted = std::iter::once(digest.to_string()).chain(blobs.filter(|blob| *blob != digest.to_string()));
    let deleted = deleted.map(|digest| ImageDeleteResponseItem { untagged: None, deleted: Some(digest) });
    Ok(references.iter().map(untagged).chain(deleted).collect())
}

/// Returns the images that must stay on this node: those of its tasks, and of the present services, whose tasks may
/// come here at any time.
fn in_use(node: &NodeHandle) -> BTreeSet<Digest> {
    let views = node.views();
    let here: BTreeSet<_> = views
        .tasks
        .iter()
        .filter(|task| task.node == node.about.id && !task.report.state.is_final())
        .map(|task| task.report.service)
        .collect();
    let services = views.services.iter().filter(|service| here.contains(&service.id));
    services.filter_map(|service| service.spec.task.image.digest.as_ref()?.parse().ok()).collect()
}
