//! `POST /images/create`: an image from its registry, or from the nodes that have it, told as it comes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_runtime::image::progress::Step;
use shoal_runtime::image::registry::Login;
use shoal_runtime::image::{Digest, Reference};
use tokio::sync::mpsc;

use crate::api::body::Parsed;
use crate::api::error::{ApiError, shown};
use crate::api::params::Params;
use crate::api::{NodeHandle, PullError};

/// Longest header with a login, in bytes.
const LOGIN_BYTES_MAX: usize = 64 << 10;
/// Time between two lines about one blob.
const LINE_INTERVAL: Duration = Duration::from_millis(100);
/// Characters of the bar that Docker's client shows.
const BAR_CHARS: u64 = 50;
/// Characters of a digest by which Docker names a layer.
const ID_CHARS: usize = 12;

/// A login as Docker's clients send it.
#[derive(Deserialize, serde::Serialize)]
pub(in crate::api) struct DockerLogin {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    serveraddress: Option<String>,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
    #[serde(default)]
    auth: Option<String>,
}

impl DockerLogin {
    fn login(self) -> Option<Login> {
        let username = self.username.filter(|name| !name.is_empty())?;
        Some(Login { username, password: self.password.unwrap_or_default() })
    }
}

/// Returns the login of a request's `X-Registry-Auth`, if it has one.
pub(in crate::api) fn login(headers: &HeaderMap) -> Result<Option<Login>, ApiError> {
    let wrong = || ApiError::BadRequest("invalid X-Registry-Auth: expected base64url of a JSON object".to_owned());
    let Some(value) = headers.get("x-registry-auth") else { return Ok(None) };
    // Clients differ in padding.
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&URL_SAFE, config);
    let bytes = Some(value.as_bytes()).filter(|bytes| bytes.len() <= LOGIN_BYTES_MAX).ok_or_else(wrong)?;
    let bytes = engine.decode(bytes).map_err(|_| wrong())?;
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(serde_json::from_slice::<DockerLogin>(&bytes).map_err(|_| wrong())?.login())
}

/// `POST /auth`: whether a registry takes a login.
pub(in crate::api) async fn check_login(
    State(node): State<NodeHandle>,
    Parsed(asked): Parsed<DockerLogin>,
) -> Result<Json<Value>, ApiError> {
    let registry = asked.serveraddress.clone().unwrap_or_default();
    let registry = registry.split_once("://").map_or(registry.as_str(), |(_, rest)| rest);
    let registry = match registry.split('/').next() {
        Some("") | None => "docker.io",
        Some(registry) => registry,
    };
    let login =
        asked.login().ok_or_else(|| ApiError::BadRequest("a user name and a password are needed".to_owned()))?;
    node.sources.check_login(registry.to_owned(), login).await.map_err(ApiError::from)?;
    Ok(Json(json!({ "Status": "Login Succeeded", "IdentityToken": "" })))
}

/// `POST /images/create?fromImage=NAME&tag=TAG_OR_DIGEST`
pub(in crate::api) async fn create(
    State(node): State<NodeHandle>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if params.text("fromSrc").is_some() {
        return Err(ApiError::NotSupported("docker import".to_owned()));
    }
    let reference = reference(&params)?;
    if let Some(platform) = params.text("platform").filter(|platform| !is_ours(platform)) {
        return Err(ApiError::NotSupported(format!("pulling for another platform ({})", shown(platform))));
    }
    let login = login(&headers)?;
    let (sender, mut lines) = mpsc::unbounded_channel();
    tokio::spawn(pull(node, reference, login, sender));
    // What fails before anything was said has a status of its own.
    match lines.recv().await {
        Some(Told::Failed(error)) => Err(error),
        first => {
            let stream = futures::stream::unfold((first, lines), |(next, mut lines)| async move {
                let line = next?.line();
                let next = lines.recv().await;
                Some((Ok::<_, Infallible>(line), (next, lines)))
            });
            let headers = [(header::CONTENT_TYPE, "application/json")];
            Ok((StatusCode::OK, headers, Body::from_stream(stream)).into_response())
        }
    }
}

fn reference(params: &Params) -> Result<Reference, ApiError> {
    let name = params.text("fromImage").ok_or_else(|| ApiError::BadRequest("fromImage is missing".to_owned()))?;
    let wanted = match params.text("tag") {
        Some(digest) if digest.contains(':') => format!("{name}@{digest}"),
        Some(tag) => format!("{name}:{tag}"),
        None => name.to_owned(),
    };
    wanted.parse().map_err(|error| ApiError::BadRequest(format!("invalid image name {:?}: {error}", shown(&wanted))))
}

fn is_ours(platform: &str) -> bool {
    let own = format!("linux/{}", crate::host::architecture());
    platform == own || platform.strip_prefix(&own).is_some_and(|variant| variant.starts_with('/'))
}

/// What goes to the client.
enum Told {
    Line(Value),
    Failed(ApiError),
}

impl Told {
    fn line(self) -> Bytes {
        let value = match self {
            Self::Line(value) => value,
            Self::Failed(error) => {
                json!({ "errorDetail": { "message": error.to_string() }, "error": error.to_string() })
            }
        };
        format!("{value}\r\n").into()
    }
}

async fn pull(node: NodeHandle, reference: Reference, login: Option<Login>, lines: mpsc::UnboundedSender<Told>) {
    // A client that went away need not be told; the pull goes on, as with Docker's engine.
    let tell = {
        let lines = lines.clone();
        move |value: Value| drop(lines.send(Told::Line(value)))
    };
    let layers = Arc::new(std::sync::Mutex::new(Layers::default()));
    let progress = {
        let (tell, layers) = (tell.clone(), Arc::clone(&layers));
        Arc::new(move |step: Step| {
            let mut layers = layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            layers.told(step).into_iter().for_each(&tell);
        })
    };
    let pulled = node.sources.pull(reference.clone(), login, progress).await;
    node.images_changed.notify_one();
    match pulled {
        Ok((digest, is_newer)) => {
            node.events.image("pull", &reference.to_string());
            tell(json!({ "status": format!("Digest: {digest}") }));
            let what = if is_newer { "Downloaded newer image for" } else { "Image is up to date for" };
            tell(json!({ "status": format!("Status: {what} {reference}") }));
        }
        Err(error) => drop(lines.send(Told::Failed(error.into()))),
    }
}

impl From<PullError> for ApiError {
    fn from(error: PullError) -> Self {
        match error {
            PullError::NotFound(text) => Self::NotFound(text),
            PullError::Denied(text) => Self::Denied(text),
            PullError::Failed(text) => Self::Internal(text),
        }
    }
}

/// When each blob was last told of.
#[derive(Default)]
struct Layers(BTreeMap<Digest, Instant>);

impl Layers {
    /// Returns Docker's words for what happened, unless the last ones are too recent.
    fn told(&mut self, step: Step) -> Option<Value> {
        let line = |digest: Digest, status: &str| json!({ "status": status, "progressDetail": {}, "id": id(digest) });
        match step {
            Step::Wanted(digest) => Some(line(digest, "Pulling fs layer")),
            Step::Exists(digest) => Some(line(digest, "Already exists")),
            Step::Complete(digest) => Some(line(digest, "Pull complete")),
            Step::Downloading { digest, done_bytes, total_bytes } => {
                let is_due = self.0.get(&digest).is_none_or(|last| last.elapsed() >= LINE_INTERVAL);
                if !is_due && done_bytes < total_bytes {
                    return None;
                }
                self.0.insert(digest, Instant::now());
                Some(json!({
                    "status": "Downloading", "id": id(digest), "progress": bar(done_bytes, total_bytes),
                    "progressDetail": { "current": done_bytes, "total": total_bytes },
                }))
            }
        }
    }
}

fn id(digest: Digest) -> String {
    digest.hex()[..ID_CHARS].to_owned()
}

fn bar(done_bytes: u64, total_bytes: u64) -> String {
    let full = done_bytes.min(total_bytes) * BAR_CHARS / total_bytes.max(1);
    let (done, left) = ("=".repeat(full as usize), " ".repeat((BAR_CHARS - full) as usize));
    let size = crate::cli::words::size;
    format!("[{done}>{left}] {}/{}", size(done_bytes), size(total_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_whatever_the_padding() {
        let headers = |text: &str| HeaderMap::from_iter([("x-registry-auth".parse().unwrap(), text.parse().unwrap())]);
        // {"username":"a","password":"b"} and {}
        for text in ["eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6ImIifQ==", "eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6ImIifQ"] {
            let found = login(&headers(text)).unwrap().unwrap();
            assert_eq!((found.username.as_str(), found.password.as_str()), ("a", "b"));
        }
        assert_eq!(login(&headers("e30=")).unwrap(), None);
        assert_eq!(login(&HeaderMap::new()).unwrap(), None);
        for text in ["!", "AAAA", &"e".repeat(100_000)] {
            assert!(login(&headers(text)).is_err());
        }
    }

    #[test]
    fn progress_is_told_as_dockers_client_expects_it() {
        let mut layers = Layers::default();
        let digest = Digest::of(b"x");
        let step = |done_bytes| Step::Downloading { digest, done_bytes, total_bytes: 1000 };
        let line = layers.told(step(500)).unwrap();
        assert_eq!(line["progressDetail"], json!({ "current": 500, "total": 1000 }));
        assert_eq!(line["id"].as_str().unwrap().len(), ID_CHARS);
        assert!(line["progress"].as_str().unwrap().starts_with(&format!("[{}>{}] ", "=".repeat(25), " ".repeat(25))));
        assert!(layers.told(step(501)).is_none(), "not more often than somebody can read");
        assert!(layers.told(step(1000)).is_some());
    }
}
