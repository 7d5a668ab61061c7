//! `POST /images/load`: an archive that is streamed into the store.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use serde_json::json;
use shoal_runtime::image::{LoadError, Loaded};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::api::NodeHandle;
use crate::api::error::{ApiError, with_causes};

/// Longest archive in bytes as it is sent, which is the longest single blob that the store takes by default.
const ARCHIVE_BYTES_MAX: u64 = 16 << 30;

/// Reads an archive as `docker save` writes it, and says what was in it, as Docker's engine does.
pub(in crate::api) async fn load(State(node): State<NodeHandle>, request: Request) -> Result<Response, ApiError> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|bytes: u64| bytes > ARCHIVE_BYTES_MAX) {
        return Err(ApiError::TooLarge { max_bytes: ARCHIVE_BYTES_MAX });
    }
    let images = Arc::clone(&node.images);
    let mut archive = SyncIoBridge::new(StreamReader::new(bounded(request.into_body())));
    let loaded = tokio::task::spawn_blocking(move || {
        let loaded = images.load(&mut archive);
        // The client reads the answer once it has sent all; a broken archive may be refused at its first bytes.
        // What cannot be read any more has been told already.
        let _ = io::copy(&mut archive, &mut io::sink());
        loaded
    });
    let loaded = loaded.await;
    let loaded = loaded.map_err(|error| ApiError::internal(&error))?.map_err(|error| refused(&error))?;
    node.images_changed.notify_one();
    for name in loaded.iter().flat_map(|image| &image.references) {
        node.events.image("load", &name.to_string());
    }
    let lines: String = loaded.iter().flat_map(lines).collect();
    Ok(([(header::CONTENT_TYPE, "application/json")], lines).into_response())
}

/// Returns the body's bytes, with an error in place of those beyond the bound.
fn bounded(body: Body) -> impl futures::Stream<Item = io::Result<bytes::Bytes>> + Unpin + Send {
    let mut left = ARCHIVE_BYTES_MAX;
    body.into_data_stream().map_err(io::Error::other).and_then(move |chunk| {
        let within = left.checked_sub(chunk.len() as u64);
        left = within.unwrap_or_default();
        std::future::ready(match within {
            Some(_) => Ok(chunk),
            None => Err(io::Error::other(format!("it is longer than the {ARCHIVE_BYTES_MAX} bytes allowed"))),
        })
    })
}

/// What the archive is to blame for is the client's error, what the disk is to blame for is ours.
fn refused(error: &LoadError) -> ApiError {
    let text = format!("cannot load the image: {}", with_causes(error));
    match matches!(error, LoadError::Store(_) | LoadError::Io(_)) {
        true => ApiError::Internal(text),
        false => ApiError::BadRequest(text),
    }
}

fn lines(image: &Loaded) -> Vec<String> {
    let line = |text: String| format!("{}\n", json!({ "stream": text }));
    if image.references.is_empty() {
        return vec![line(format!("Loaded image ID: {}\n", image.digest))];
    }
    image.references.iter().map(|reference| line(format!("Loaded image: {reference}\n"))).collect()
}
