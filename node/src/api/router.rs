//! The router: which call is answered where, and what all answers have in common.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use shoal_cluster::intent::object::DataKind;
use tower::ServiceExt;

use super::body::drain;
use super::error::{ApiError, shown};
use super::system::version_text;
use super::{
    API_VERSION, API_VERSION_MIN, NodeHandle, attach, conflicts, containers, data, distribution, events, exec, images,
    logs, networks, nodes, not_here, plan, rollouts, services, shoal, swarm, system, tasks, volumes,
};

/// Returns what answers all requests: the paths of [`paths`], with or without a version in front.
pub(super) fn router(node: NodeHandle) -> Router {
    let paths = paths(node);
    let dispatch = move |mut request: Request| {
        let paths = paths.clone();
        async move {
            match without_version(request.uri()) {
                Ok(uri) => {
                    *request.uri_mut() = uri;
                    // The router answers everything, errors included.
                    paths.oneshot(request).await.unwrap_or_else(|never| match never {})
                }
                Err(error) => {
                    drain(request.into_body()).await;
                    error.into_response()
                }
            }
        }
    };
    Router::new().fallback(dispatch).layer(map_response(add_headers))
}

fn paths(node: NodeHandle) -> Router {
    Router::new()
        .route("/_ping", get(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(events::events))
        .route("/swarm", get(swarm::inspect))
        .route("/swarm/leave", post(swarm::leave))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{id}", get(nodes::inspect).delete(nodes::remove))
        .route("/nodes/{id}/update", post(nodes::update))
        .route("/services", get(services::list))
        .route("/services/create", post(services::create))
        .route("/services/{id}", get(services::inspect).merge(delete(services::remove)))
        .route("/services/{id}/update", post(services::update))
        .route("/services/{id}/logs", get(logs::service))
        .route("/tasks", get(tasks::list))
        .route("/tasks/{id}", get(tasks::inspect))
        .route("/tasks/{id}/logs", get(logs::task))
        .route("/networks", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune))
        .route("/networks/{id}", get(networks::inspect).merge(delete(networks::remove)))
        .nest("/secrets", data::routes(DataKind::Secret))
        .nest("/configs", data::routes(DataKind::Config))
        .route("/images/json", get(images::list))
        .route("/images/load", post(images::load))
        .route("/images/create", post(images::create))
        .route("/images/prune", post(images::prune))
        .route("/images/get", get(images::save))
        .route("/auth", post(images::check_login))
        .route("/images/{*rest}", any(images::named))
        .route("/distribution/{*rest}", get(distribution::inspect))
        .route("/containers/json", get(containers::list))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/stats", get(containers::stats))
        .route("/containers/{id}/top", get(containers::top))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/containers/{id}/wait", post(containers::wait))
        .route("/containers/{id}/logs", get(logs::container))
        .route("/containers/{id}/attach", post(attach::attach))
        .route("/containers/{id}/resize", post(attach::resize))
        .route("/containers/{id}/exec", post(exec::create))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/resize", post(exec::resize))
        .route("/exec/{id}/json", get(exec::inspect))
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        .route("/volumes/{name}", get(volumes::inspect).merge(delete(volumes::remove)))
        .route("/shoal/status", get(shoal::status))
        .route("/shoal/join", get(shoal::join))
        .route("/shoal/conflicts", get(conflicts::list))
        .route("/shoal/plan", get(plan::plan))
        .route("/shoal/services/{id}/history", get(rollouts::history))
        .route("/shoal/why", get(plan::why))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(node)
}

async fn not_found(method: Method, uri: Uri, body: Body) -> ApiError {
    drain(body).await;
    not_here::refusal(&method, uri.path(), ApiError::NoSuchPath)
}

async fn not_allowed(method: Method, uri: Uri, body: Body) -> ApiError {
    drain(body).await;
    not_here::refusal(&method, uri.path(), ApiError::MethodNotAllowed)
}

/// Says which API this is, as Docker's engine does with every answer.
async fn add_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if let Ok(version) = HeaderValue::from_str(&version_text(API_VERSION)) {
        headers.insert("api-version", version);
    }
    headers.insert("ostype", HeaderValue::from_static("linux"));
    headers.insert("docker-experimental", HeaderValue::from_static("false"));
    headers.insert(header::SERVER, HeaderValue::from_static(concat!("shoal/", env!("CARGO_PKG_VERSION"))));
    response
}

/// Takes the version off the front of a path, and refuses versions that are not spoken, in Docker's words.
fn without_version(uri: &Uri) -> Result<Uri, ApiError> {
    let Some((version, rest)) = uri.path().strip_prefix("/v").and_then(|path| path.split_once('/')) else {
        return Ok(uri.clone());
    };
    let Some((major, minor)) = version.split_once('.') else { return Ok(uri.clone()) };
    let (Ok(major), Ok(minor)) = (major.parse::<u32>(), minor.parse::<u32>()) else { return Ok(uri.clone()) };
    let (newest, oldest) = (version_text(API_VERSION), version_text(API_VERSION_MIN));
    if (major, minor) > API_VERSION {
        let text = format!("client version {} is too new. Maximum supported API version is {newest}", shown(version));
        return Err(ApiError::BadRequest(text));
    }
    if (major, minor) < API_VERSION_MIN {
        let text = format!("client version {} is too old. Minimum supported API version is {oldest}", shown(version));
        return Err(ApiError::BadRequest(text));
    }
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let path = PathAndQuery::try_from(format!("/{rest}{query}")).map_err(|_| ApiError::NoSuchPath)?;
    Ok(Uri::from(path))
}
