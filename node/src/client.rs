//! The client: asks a node over its socket, as Docker's own client would.
//!
//! Docker's calls go through bollard. What bollard cannot say (below `/shoal/`, and versions of 64 bits) goes through a
//! connection of our own.

use std::io;
use std::path::{Path, PathBuf};

use bollard::{ClientVersion, Docker};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::API_VERSION;

/// Longest answer in bytes that is taken in: a status of the largest shoal has a few megabytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long one call may take, in seconds. Loading an image is one call.
const CALL_TIMEOUT_SECONDS: u64 = 60 * 60;

/// A node that answers.
#[derive(Debug)]
pub struct Client {
    docker: Docker,
    socket: PathBuf,
}

/// Why a node did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens at the socket.
    #[error("cannot reach a shoal node at {}: is it running? start one with `shoal up`", .0.display())]
    NotRunning(PathBuf),
    /// The socket belongs to others.
    #[error("no permission to use {}: run the command as root, or as a member of the socket's group", .0.display())]
    Permission(PathBuf),
    /// The connection failed.
    #[error("the connection to the node at {} failed", socket.display())]
    Connection {
        /// The node's socket.
        socket: PathBuf,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node refused. The text is its own.
    #[error("{message}")]
    Refused {
        /// The status, by which callers tell reasons apart.
        status: u16,
        /// What the node said.
        message: String,
    },
    /// The answer makes no sense.
    #[error("the answer of the node at {} is not understood: is it of another version?", socket.display())]
    Answer {
        /// The node's socket.
        socket: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ClientError {
    /// Tells whether the node refused with this status.
    pub fn is_status(&self, wanted: u16) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == wanted)
    }
}

impl Client {
    /// Connects to the node at this socket.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] or [`ClientError::Permission`] if nobody can be reached there.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let client = |source| refused_connection(socket, source);
        drop(UnixStream::connect(socket).await.map_err(client)?);
        let (major, minor) = API_VERSION;
        let version = ClientVersion { major_version: major as usize, minor_version: minor as usize };
        let docker = Docker::connect_with_unix(&socket.to_string_lossy(), CALL_TIMEOUT_SECONDS, &version);
        let docker = docker.map_err(|error| Self::error_at(socket, error))?;
        Ok(Self { docker, socket: socket.to_owned() })
    }

    /// Returns what makes Docker's calls.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Translates an error of one of Docker's calls.
    pub fn error(&self, error: bollard::errors::Error) -> ClientError {
        Self::error_at(&self.socket, error)
    }

    fn error_at(socket: &Path, error: bollard::errors::Error) -> ClientError {
        use bollard::errors::Error;
        let socket = socket.to_owned();
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                ClientError::Refused { status: status_code, message }
            }
            Error::DockerStreamError { error } => ClientError::Refused { status: 500, message: error },
            Error::SocketNotFoundError(_) => ClientError::NotRunning(socket),
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => {
                ClientError::Answer { socket, source: error.into() }
            }
            error => ClientError::Connection { socket, source: error.into() },
        }
    }

    /// Asks for what lies below `/shoal/`, or for anything else by its path.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the node's words if it refuses; others if the connection or the answer is broken.
    pub async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let bytes = self.call(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.answer(error.into()))
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl serde::Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.answer(error.into()))?;
        let bytes = self.call(Method::POST, path, body.into()).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.answer(error.into()))
    }

    /// Posts JSON where no answer is expected but that it is done.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn tell(&self, path: &str, body: &impl serde::Serialize) -> Result<(), ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.answer(error.into()))?;
        self.call(Method::POST, path, body.into()).await.map(drop)
    }

    /// Deletes what lies at this path.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let bytes = self.call(Method::DELETE, path, Bytes::new()).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.answer(error.into()))
    }

    /// Asks for what comes bit by bit.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn open(&self, path: &str) -> Result<Response<Incoming>, ClientError> {
        let answer = self.send(Method::GET, path, Bytes::new(), None).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(self.refusal(answer).await)
    }

    /// Posts JSON, and takes over the connection: what is written goes to the node, what is read comes from it.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn hijack(&self, path: &str, body: &impl serde::Serialize) -> Result<TokioIo<Upgraded>, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.answer(error.into()))?;
        let mut answer = self.send(Method::POST, path, body.into(), Some("tcp")).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refusal(answer).await);
        }
        let upgraded = hyper::upgrade::on(&mut answer).await;
        upgraded.map(TokioIo::new).map_err(|error| self.answer(error.into()))
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let answer = self.send(method, path, body, None).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| self.answer(error))?.to_bytes();
        if status.is_success() { Ok(bytes) } else { Err(refused(status, &bytes)) }
    }

    /// Sends a request on a connection of its own, which ends with the answer's body or lives on as another protocol.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        upgrade: Option<&str>,
    ) -> Result<Response<Incoming>, ClientError> {
        let broken =
            |error: hyper::Error| ClientError::Connection { socket: self.socket.clone(), source: error.into() };
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| refused_connection(&self.socket, error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // What ends it early is seen by the call as well.
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "shoal")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(protocol) = upgrade {
            request = request.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, protocol);
        }
        let request = request.body(Full::new(body)).map_err(|error| self.answer(error.into()))?;
        sender.send_request(request).await.map_err(broken)
    }

    async fn refusal(&self, answer: Response<Incoming>) -> ClientError {
        let status = answer.status();
        match Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await {
            Ok(body) => refused(status, &body.to_bytes()),
            Err(error) => self.answer(error),
        }
    }

    fn answer(&self, source: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
        ClientError::Answer { socket: self.socket.clone(), source }
    }
}

/// Returns text as it may stand in a path or a query.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:,".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let parsed: Option<bollard::models::ErrorResponse> = serde_json::from_slice(body).ok();
    let message = parsed.map_or_else(|| format!("the node answered {status}"), |error| error.message);
    ClientError::Refused { status: status.as_u16(), message }
}

fn refused_connection(socket: &Path, error: io::Error) -> ClientError {
    let socket = socket.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(socket),
        io::ErrorKind::PermissionDenied => ClientError::Permission(socket),
        _ => ClientError::Connection { socket, source: error.into() },
    }
}
