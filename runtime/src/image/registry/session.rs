//! One conversation with one registry about one repository: requests, the login, patience, and bounds on answers.

use std::time::Duration;

use oci_client::{
    Client, Reference as OciReference, RegistryOperation,
    client::{ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    secrets::RegistryAuth,
};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, RANGE, RETRY_AFTER},
    redirect::Policy,
};
use serde::Deserialize;
use tokio::sync::RwLock;

use super::{Resolved, credentials::Login, endpoint::Endpoint, error::RegistryError};
use crate::image::{digest::Digest, document::DocumentError};

/// How long connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a registry may be silent in the middle of an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long the exchange of a login for a token may take.
const LOGIN_TIME_MAX: Duration = Duration::from_secs(30);
/// How often one request is made, if what keeps it from success may pass.
const TRIES_MAX: u32 = 4;
/// The first pause between tries; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause that a registry may ask for; beyond it the operator is told instead.
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// What is read of an answer that is no success.
const REFUSAL_BYTES_MAX: usize = 16 << 10;
/// What is shown of it.
const DETAIL_CHARS_MAX: usize = 200;
const REDIRECTS_MAX: usize = 5;

const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// The header by which registries name what they send.
const CONTENT_DIGEST: &str = "docker-content-digest";
const USER_AGENT: &str = concat!("shoal/", env!("CARGO_PKG_VERSION"));

/// Makes what carries requests.
pub(super) fn http() -> Result<reqwest::Client, RegistryError> {
    // A redirect may lead to the registry's own store of blobs, but never from TLS to plain text.
    let policy = Policy::custom(|attempt| {
        let was_tls = attempt.previous().first().is_some_and(|url| url.scheme() == "https");
        match attempt.previous().len() {
            REDIRECTS_MAX.. => attempt.error("too many redirects"),
            _ if was_tls && attempt.url().scheme() != "https" => attempt.error("redirected from TLS to plain text"),
            _ => attempt.follow(),
        }
    });
    let builder = || {
        reqwest::Client::builder().user_agent(USER_AGENT).connect_timeout(CONNECT_TIME_MAX).read_timeout(SILENCE_MAX)
    };
    let built = builder().redirect(policy).build();
    // Without root certificates on this machine, registries that need none can still be asked.
    built.or_else(|_| builder().tls_certs_only([]).redirect(Policy::none()).build()).map_err(RegistryError::Setup)
}

/// How requests show who asks.
#[derive(Clone)]
enum Authorization {
    None,
    Basic(Login),
    Bearer(String),
}

/// The conversation.
pub(super) struct Session {
    http: reqwest::Client,
    endpoint: Endpoint,
    repository: String,
    login: Option<Login>,
    authorization: RwLock<Authorization>,
}

#[derive(Deserialize)]
struct Refusal {
    errors: Vec<RefusalError>,
}

#[derive(Deserialize)]
struct RefusalError {
    #[serde(default)]
    message: String,
}

impl Session {
    pub(super) fn new(http: reqwest::Client, endpoint: Endpoint, repository: String, login: Option<Login>) -> Self {
        Self { http, endpoint, repository, login, authorization: RwLock::new(Authorization::None) }
    }

    pub(super) fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// Asks for the digest of a manifest, by a request that registries do not count against their limits.
    pub(super) async fn resolve(&self, which: &str) -> Result<Resolved, RegistryError> {
        let answer = self.request(&Method::HEAD, &format!("manifests/{which}"), 0).await?;
        let size_bytes = header(&answer, CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        match header(&answer, CONTENT_DIGEST).and_then(|text| text.parse().ok()) {
            Some(digest) => Ok(Resolved { digest, size_bytes }),
            None => {
                let (digest, document) = self.manifest(which, 4 << 20).await?;
                Ok(Resolved { digest, size_bytes: Some(document.len() as u64) })
            }
        }
    }

    /// Fetches a manifest or index by tag or digest, verified.
    pub(super) async fn manifest(&self, which: &str, bytes_max: u64) -> Result<(Digest, Vec<u8>), RegistryError> {
        let path = format!("manifests/{which}");
        let mut answer = self.request(&Method::GET, &path, 0).await?;
        let mut document = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if (document.len() + chunk.len()) as u64 > bytes_max {
                let bytes = answer.content_length().unwrap_or(bytes_max + 1).max(bytes_max + 1);
                return Err(DocumentError::TooLong { what: "manifest", bytes, max: bytes_max }.into());
            }
            document.extend_from_slice(&chunk);
        }
        let found = Digest::of(&document);
        let named = header(&answer, CONTENT_DIGEST).and_then(|text| text.parse().ok());
        let expected = which.parse::<Digest>().ok().or(named);
        if expected.is_some_and(|expected| expected != found) {
            return Err(RegistryError::Digest { host: self.host().to_owned(), what: self.what(&path), found });
        }
        Ok((found, document))
    }

    /// Opens a blob from byte `from` on.
    pub(super) async fn blob(&self, digest: &Digest, from: u64) -> Result<Response, RegistryError> {
        self.request(&Method::GET, &format!("blobs/{digest}"), from).await
    }

    /// Asks whether the login is taken.
    pub(super) async fn check(&self) -> Result<(), RegistryError> {
        self.request(&Method::GET, "", 0).await.map(drop)
    }

    /// Makes one request until it succeeds or will not.
    async fn request(&self, method: &Method, path: &str, from: u64) -> Result<Response, RegistryError> {
        let (mut tries, mut logged_in) = (0, false);
        loop {
            tries += 1;
            let request = self.prepared(method, path, from).await;
            let answered = match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED && !logged_in => {
                    self.log_in(path).await?;
                    logged_in = true;
                    continue;
                }
                Ok(answer) => self.refused(answer, path).await,
                Err(error) => self.unreachable(&error),
            };
            let pause = match &answered {
                RegistryError::TooMany { wait: Some(wait), .. } => *wait,
                _ => PAUSE * 2u32.pow(tries.min(6) - 1),
            };
            // Nobody listens, or speaks TLS: that does not pass within a second, and there may be another place to ask.
            let is_refused = matches!(&answered, RegistryError::Unreachable { .. }) && from == 0 && tries > 1;
            if !answered.is_transient() || tries >= TRIES_MAX || pause > PAUSE_MAX || is_refused {
                return Err(answered);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn prepared(&self, method: &Method, path: &str, from: u64) -> RequestBuilder {
        let url = match path {
            "" => format!("{}/v2/", self.endpoint.base()),
            path => format!("{}/v2/{}/{path}", self.endpoint.base(), self.repository),
        };
        let mut request = self.http.request(method.clone(), url);
        if path.starts_with("manifests/") {
            request = request.header(ACCEPT, MANIFEST_TYPES);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        match &*self.authorization.read().await {
            Authorization::None => request,
            Authorization::Basic(login) => request.basic_auth(&login.username, Some(&login.password)),
            Authorization::Bearer(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
        }
    }

    /// Does what the registry's challenge asks for: a token where it names who gives them, else name and password.
    async fn log_in(&self, path: &str) -> Result<(), RegistryError> {
        let protocol = if self.endpoint.is_tls { ClientProtocol::Https } else { ClientProtocol::Http };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT_TIME_MAX),
            read_timeout: Some(SILENCE_MAX),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| self.not_logged_in(path, &error))?;
        let auth = match &self.login {
            Some(login) => RegistryAuth::Basic(login.username.clone(), login.password.clone()),
            None => RegistryAuth::Anonymous,
        };
        let repository = if self.repository.is_empty() { "shoal/login" } else { &self.repository };
        let image = OciReference::with_tag(self.host().to_owned(), repository.to_owned(), "latest".to_owned());
        let asking = tokio::time::timeout(LOGIN_TIME_MAX, client.auth(&image, &auth, RegistryOperation::Pull)).await;
        let token = match asking {
            Ok(answered) => answered.map_err(|error| self.not_logged_in(path, &error))?,
            Err(_) => {
                let cause = "its token service does not answer".to_owned();
                return Err(RegistryError::Unreachable { host: self.host().to_owned(), cause });
            }
        };
        let authorization = match (token, &self.login) {
            (Some(token), _) => Authorization::Bearer(token),
            (None, Some(login)) => Authorization::Basic(login.clone()),
            (None, None) => return Err(self.denied(path, "")),
        };
        *self.authorization.write().await = authorization;
        Ok(())
    }

    fn not_logged_in(&self, path: &str, error: &OciDistributionError) -> RegistryError {
        match error {
            OciDistributionError::RequestError(error) => self.unreachable(error),
            OciDistributionError::AuthenticationFailure(reason) => self.denied(path, &words(reason.as_bytes())),
            other => self.denied(path, &other.to_string()),
        }
    }

    fn denied(&self, path: &str, detail: &str) -> RegistryError {
        RegistryError::Denied { host: self.host().to_owned(), what: self.what(path), detail: after_colon(detail) }
    }

    async fn refused(&self, answer: Response, path: &str) -> RegistryError {
        let status = answer.status();
        let (host, what) = (self.host().to_owned(), self.what(path));
        let wait = header(&answer, RETRY_AFTER.as_str()).and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let body = beginning(answer).await;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied(path, &words(&body)),
            StatusCode::NOT_FOUND => RegistryError::NotFound { host, what },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooMany { host, wait },
            _ => RegistryError::Status { host, status: status.as_u16(), what, detail: after_colon(&words(&body)) },
        }
    }

    pub(super) fn unreachable(&self, error: &reqwest::Error) -> RegistryError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let cause = if error.is_timeout() { "it does not answer in time".to_owned() } else { cause.to_string() };
        RegistryError::Unreachable { host: self.host().to_owned(), cause }
    }

    /// Returns what a path asks for, for messages.
    pub(super) fn what(&self, path: &str) -> String {
        match path.split_once('/') {
            Some(("manifests", which)) if which.contains(':') => format!("image {}@{which}", self.repository),
            Some(("manifests", which)) => format!("image {}:{which}", self.repository),
            Some((_, digest)) => format!("blob {digest} of {}", self.repository),
            None => "its users".to_owned(),
        }
    }
}

fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// Reads the beginning of a body; what cannot be read says nothing.
async fn beginning(mut answer: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(REFUSAL_BYTES_MAX - body.len())]);
        if body.len() == REFUSAL_BYTES_MAX {
            break;
        }
    }
    body
}

/// Returns a registry's words out of its error document, or nothing if there are none.
fn words(body: &[u8]) -> String {
    let refusal = serde_json::from_slice::<Refusal>(body).ok();
    let message = refusal.and_then(|refusal| refusal.errors.into_iter().next()).map(|error| error.message);
    let message = message.unwrap_or_default();
    message.chars().filter(|character| !character.is_control()).take(DETAIL_CHARS_MAX).collect()
}

fn after_colon(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}
