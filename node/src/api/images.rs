//! `/images`: this node's images.
//!
//! Names of images may contain slashes, so one route takes all that lies below `/images/` and looks at the end.

mod load;
mod prune;
mod pull;
mod save;
mod show;

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bollard::models::{ImageDeleteResponseItem, ImageSummary};
use shoal_cluster::intent::service::Service;
use shoal_cluster::view::TaskView;
use shoal_runtime::image::{Digest, ImageStore, Reference, StoreError};

use super::NodeHandle;
use super::error::{ApiError, shown};
use super::filters::Filters;
use super::params::{Params, Segment};

pub(super) use load::load;
pub(super) use prune::prune;
pub(super) use pull::{check_login, create, login};
pub(super) use save::save;

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
        (&Method::GET, Some((name, "history"))) => history(&node, name).await,
        (&Method::GET, Some((name, "get"))) => save::answer(&node, vec![name.to_owned()]).await,
        (&Method::POST, Some((name, "tag"))) => tag(&node, name, &params).await,
        (&Method::DELETE, _) => remove(&node, &rest, params.flag("force")).await,
        (method, _) => {
            let refusal = super::not_here::refusal(method, request.uri().path(), ApiError::NoSuchPath);
            super::body::drain(request.into_body()).await;
            Err(refusal)
        }
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

/// `GET /images/{name}/history`
async fn history(node: &NodeHandle, name: &str) -> Result<Response, ApiError> {
    let name = name.to_owned();
    let image = blocking(node, move |images| {
        let digest = resolve(images, &name)?;
        images.image(&digest).map_err(|error| ApiError::internal(&error))
    });
    Ok(Json(show::history(&image.await?)).into_response())
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
    node.events.image("tag", &wanted);
    Ok(StatusCode::CREATED.into_response())
}

/// Takes a name away, and the image with its last name. An image that a task here runs stays unless `force`d.
async fn remove(node: &NodeHandle, name: &str, force: bool) -> Result<Response, ApiError> {
    let (in_use, wanted) = (in_use(node), wanted(node));
    let name = name.to_owned();
    let removed = blocking(node, move |images| {
        let removal = plan_removal(images, &name, &in_use, force)?;
        carry_out(images, &removal, &wanted).map_err(|error| ApiError::internal(&error))
    });
    let removed = removed.await?;
    node.images_changed.notify_one();
    for item in &removed {
        item.untagged.iter().for_each(|name| node.events.image("untag", name));
        item.deleted.iter().for_each(|digest| node.events.image("delete", digest));
    }
    Ok(Json(removed).into_response())
}

/// What removing an image by one of its names means.
enum Removal {
    /// It has other names: only this one goes.
    Name(Reference),
    /// The image goes, with all its names.
    Image(Digest, BTreeSet<Reference>),
}

fn plan_removal(images: &ImageStore, name: &str, in_use: &BTreeSet<Digest>, force: bool) -> Result<Removal, ApiError> {
    let digest = resolve(images, name)?;
    let found = images.list().into_iter().find(|image| image.digest == digest);
    let is_used = found.iter().flat_map(digests).any(|digest| in_use.contains(digest));
    let references = found.map(|image| image.references).unwrap_or_default();
    let named = name.parse::<Reference>().ok().filter(|reference| references.contains(reference));
    let tags = references.iter().filter(|reference| reference.tag().is_some()).count();
    if let Some(reference) = named.filter(|_| tags > 1) {
        return Ok(Removal::Name(reference));
    }
    if is_used && !force {
        let why = "a task on this node runs it: remove its service first, or force it";
        return Err(ApiError::Conflict(format!("conflict: unable to remove image {}: {why}", shown(name))));
    }
    Ok(Removal::Image(digest, references))
}

/// Removes what was planned. Other images stay, those without a name too: older tasks may still run them.
fn carry_out(
    images: &ImageStore,
    removal: &Removal,
    wanted: &BTreeSet<Digest>,
) -> Result<Vec<ImageDeleteResponseItem>, StoreError> {
    let untagged =
        |reference: &Reference| ImageDeleteResponseItem { untagged: Some(reference.to_string()), deleted: None };
    let (digest, references) = match removal {
        Removal::Name(reference) => {
            images.untag(reference)?;
            return Ok(vec![untagged(reference)]);
        }
        Removal::Image(digest, references) => (digest, references),
    };
    images.remove(digest)?;
    let kept = images.list().into_iter().map(|image| image.digest).chain(wanted.iter().copied()).collect();
    let pruned = images.prune(&kept)?;
    let deleted = std::iter::once(*digest).chain(pruned.blobs.into_iter().filter(|blob| blob != digest));
    let deleted = deleted.map(|digest| ImageDeleteResponseItem { untagged: None, deleted: Some(digest.to_string()) });
    Ok(references.iter().map(untagged).chain(deleted).collect())
}

/// Returns the images of this node's tasks.
fn in_use(node: &NodeHandle) -> BTreeSet<Digest> {
    let views = node.views();
    let here = |service: &&Service| {
        let of_it = |task: &&TaskView| task.report.service == service.id && !task.report.state.is_final();
        views.tasks.iter().filter(of_it).any(|task| task.node == node.about.id)
    };
    views.services.iter().filter(here).filter_map(pinned).collect()
}

/// Returns the images of all services: their tasks may come here at any time, and the fetch may have begun.
fn wanted(node: &NodeHandle) -> BTreeSet<Digest> {
    node.views().services.iter().filter_map(pinned).collect()
}

/// Returns the digests that an image goes by.
fn digests(image: &shoal_runtime::image::ImageSummary) -> impl Iterator<Item = &Digest> {
    std::iter::once(&image.digest).chain(&image.indexes)
}

fn pinned(service: &Service) -> Option<Digest> {
    service.spec.task.image.digest.as_ref()?.parse().ok()
}

/// Returns how many images this node has.
pub(super) async fn count(node: &NodeHandle) -> usize {
    blocking(node, |images| Ok(images.list().len())).await.unwrap_or_default()
}
