//! `/secrets` and `/configs`: bytes that tasks get as files. They are sealed here, before the core sees them.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bollard::models::SecretSpec;
use serde::Serialize;
use shoal_cluster::intent::object::{Data, DataKind, ObjectName};
use shoal_cluster::limits::DATA_BYTES_MAX;
use shoal_cluster::{Command, NewObject, ObjectId, Views};

use super::body::Parsed;
use super::error::ApiError;
use super::filters::{Filters, in_map};
use super::params::{Params, Segment};
use super::time::rfc3339;
use super::{NodeHandle, lookup};
use crate::identity::random;

const FILTERS: &[&str] = &["id", "name", "names", "label"];

/// A secret or config as Docker shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    #[serde(rename = "ID")]
    id: String,
    version: Index,
    created_at: String,
    updated_at: String,
    spec: ShownSpec,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Index {
    index: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownSpec {
    name: String,
    labels: BTreeMap<String, String>,
    /// Base64; of configs only.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

#[derive(Debug, Serialize)]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

/// Returns the paths below `/secrets` or `/configs`.
pub(super) fn routes(kind: DataKind) -> Router<NodeHandle> {
    Router::new()
        .route("/", get(move |node, params| list(kind, node, params)))
        .route("/create", post(move |node, spec| create(kind, node, spec)))
        .route("/{id}", get(move |node, id| inspect(kind, node, id)).delete(move |node, id| remove(kind, node, id)))
        .route("/{id}/update", post(move |node, id, params, spec| update(kind, node, id, params, spec)))
}

async fn list(kind: DataKind, State(node): State<NodeHandle>, params: Params) -> Result<Json<Vec<Shown>>, ApiError> {
    let filters = Filters::read(&params, FILTERS)?;
    let views = node.views();
    let matches = |data: &&Data| {
        let labels = data.labels.clone().into_iter().collect();
        filters.any("id", |prefix| data.id.to_string().starts_with(prefix))
            && filters.any("name", |prefix| data.name.as_str().starts_with(prefix))
            && filters.any("names", |name| data.name.as_str() == name)
            && filters.labels("label", in_map(&labels))
    };
    Ok(Json(views.data(kind).values().filter(matches).map(|data| show(kind, &node, &views, data)).collect()))
}

async fn inspect(
    kind: DataKind,
    State(node): State<NodeHandle>,
    Segment(id): Segment,
) -> Result<Json<Shown>, ApiError> {
    let views = node.views();
    Ok(Json(show(kind, &node, &views, find(kind, &views, &id)?)))
}

async fn create(
    kind: DataKind,
    State(node): State<NodeHandle>,
    Parsed(spec): Parsed<SecretSpec>,
) -> Result<(StatusCode, Json<Created>), ApiError> {
    if spec.driver.is_some() {
        return Err(ApiError::NotSupported(format!("drivers of {}s: Driver", kind.word())));
    }
    if spec.templating.is_some() {
        return Err(ApiError::NotSupported(format!("templates in {}s (--template-driver): Templating", kind.word())));
    }
    let name = ObjectName::new(&spec.name.unwrap_or_default());
    let name = name.map_err(|error| ApiError::BadRequest(format!("invalid {} name: {error}", kind.word())))?;
    let bytes = decode(kind, &spec.data.unwrap_or_default())?;
    let id = ObjectId(random());
    let new = NewObject { id, name, labels: spec.labels.unwrap_or_default().into_iter().collect() };
    let sealed = node.about.data_key.seal(&id, &bytes);
    let bytes = u32::try_from(bytes.len()).map_err(|error| ApiError::internal(&error))?;
    node.apply(Command::CreateData { kind, new, bytes, sealed }).await?;
    Ok((StatusCode::CREATED, Json(Created { id: id.to_string() })))
}

/// Returns the bytes that a client sent. What it sent is in no error.
fn decode(kind: DataKind, text: &str) -> Result<Vec<u8>, ApiError> {
    let bytes = BASE64_STANDARD.decode(text);
    let bytes = bytes.map_err(|_| ApiError::BadRequest(format!("the data of the {} is not base64", kind.word())))?;
    match bytes.len() {
        0 => Err(ApiError::BadRequest(format!("the {} has no data: give it at least one byte", kind.word()))),
        1..=DATA_BYTES_MAX => Ok(bytes),
        length => Err(ApiError::BadRequest(format!(
            "the {} has {length} bytes, more than the {DATA_BYTES_MAX} that one may have: use a volume, or an image",
            kind.word()
        ))),
    }
}

async fn update(
    kind: DataKind,
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
    Parsed(spec): Parsed<SecretSpec>,
) -> Result<StatusCode, ApiError> {
    let version = params.number("version")?;
    let id = {
        let views = node.views();
        let data = find(kind, &views, &id)?;
        let other_name = spec.name.as_ref().is_some_and(|name| name != data.name.as_str());
        let other_bytes = match spec.data.as_deref() {
            None | Some("") => false,
            Some(text) => opened(&node, &views, data).as_ref() != Some(&decode(kind, text)?),
        };
        if other_name || other_bytes || spec.driver.is_some() || spec.templating.is_some() {
            let text = format!("only updates to Labels are allowed: create another {}", kind.word());
            return Err(ApiError::BadRequest(text));
        }
        data.id
    };
    let labels = spec.labels.unwrap_or_default().into_iter().collect();
    node.apply(Command::LabelData { kind, id, version, labels }).await?;
    Ok(StatusCode::OK)
}

async fn remove(kind: DataKind, State(node): State<NodeHandle>, Segment(id): Segment) -> Result<StatusCode, ApiError> {
    let id = find(kind, &node.views(), &id)?.id;
    node.apply(Command::RemoveData { kind, id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn find<'a>(kind: DataKind, views: &'a Views, text: &str) -> Result<&'a Data, ApiError> {
    let objects = views.data(kind);
    let named = objects.values().find(|data| data.name.as_str() == text);
    lookup::find(kind.word(), text, objects.values(), |data| data.id.to_string(), named)
}

fn show(kind: DataKind, node: &NodeHandle, views: &Views, data: &Data) -> Shown {
    let bytes = (kind == DataKind::Config).then(|| opened(node, views, data)).flatten();
    Shown {
        id: data.id.to_string(),
        version: Index { index: data.version },
        created_at: rfc3339(data.created_ms),
        updated_at: rfc3339(data.updated_ms),
        spec: ShownSpec {
            name: data.name.to_string(),
            labels: data.labels.clone(),
            data: bytes.map(|bytes| BASE64_STANDARD.encode(bytes)),
        },
    }
}

/// Returns the bytes, if all of them have arrived.
fn opened(node: &NodeHandle, views: &Views, data: &Data) -> Option<Vec<u8>> {
    node.about.data_key.open(&data.id, &views.sealed.get(&data.id)?)
}
