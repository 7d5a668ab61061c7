//! `GET /images/get?names=…` and `GET /images/{name}/get`: images as an archive, as `docker save` writes it.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use shoal_runtime::image::{Digest, Reference};
use tokio_util::io::{ReaderStream, SyncIoBridge};

use crate::api::NodeHandle;
use crate::api::error::ApiError;

/// Bytes that wait for the client.
const BUFFER_BYTES: usize = 1 << 20;
/// Images that one archive may hold, which is what loading it allows.
const IMAGES_MAX: usize = 256;

/// Docker repeats the parameter for several images.
pub(in crate::api) async fn save(State(node): State<NodeHandle>, uri: Uri) -> Result<Response, ApiError> {
    let axum::extract::Query(pairs): axum::extract::Query<Vec<(String, String)>> =
        axum::extract::Query::try_from_uri(&uri).map_err(|error| ApiError::BadRequest(error.body_text()))?;
    let names = pairs.into_iter().filter(|(key, _)| key == "names").map(|(_, name)| name);
    answer(&node, names.collect()).await
}

/// Streams the archive. All images are looked for before anything is sent.
pub(super) async fn answer(node: &NodeHandle, names: Vec<String>) -> Result<Response, ApiError> {
    if names.is_empty() || names.len() > IMAGES_MAX {
        return Err(ApiError::BadRequest(format!("name 1 to {IMAGES_MAX} images to save")));
    }
    let chosen: Vec<(Digest, Option<Reference>)> = super::blocking(node, move |images| {
        let chosen = names.iter().map(|name| {
            let digest = super::resolve(images, name)?;
            images.image(&digest).map_err(|error| ApiError::internal(&error))?;
            let named = name.parse::<Reference>().ok().filter(|name| images.resolve(&name.to_string()) == Some(digest));
            Ok((digest, named.and_then(|name| name.without_digest())))
        });
        chosen.collect()
    })
    .await?;
    let images = Arc::clone(&node.images);
    let (archive, sender) = tokio::io::duplex(BUFFER_BYTES);
    tokio::task::spawn_blocking(move || {
        let mut writer = io::BufWriter::with_capacity(BUFFER_BYTES, SyncIoBridge::new(sender));
        // The client sees an archive without its end.
        if let Err(error) = images.save(&chosen, &mut writer).and_then(|()| Ok(io::Write::flush(&mut writer)?)) {
            tracing::warn!(%error, "an image was not saved to its end");
        }
    });
    let body = Body::from_stream(ReaderStream::with_capacity(archive, BUFFER_BYTES));
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body).into_response())
}
