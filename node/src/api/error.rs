//! Errors as Docker's clients expect them: a status and `{"message": …}`.

use std::fmt::Write as _;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bollard::models::ErrorResponse;
use shoal_cluster::CommandError;

use super::ApplyError;
use super::spec::AcceptError;

/// Why a request was refused. Unless said otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request is malformed or names something impossible.
    #[error("{0}")]
    BadRequest(String),
    /// There is no such thing; the text says which.
    #[error("{0}")]
    NotFound(String),
    /// A registry wants a login, or another one.
    #[error("{0}")]
    Denied(String),
    /// There is no such path.
    #[error("page not found")]
    NoSuchPath,
    /// The path exists, but not with this method.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// Something else is in the way.
    #[error("{0}")]
    Conflict(String),
    /// The body is longer than it may be.
    #[error("the request body is longer than the {max_bytes} bytes allowed")]
    TooLarge {
        /// The bound.
        max_bytes: u64,
    },
    /// Docker has it, shoal does not.
    #[error("shoal does not support {0} yet")]
    NotSupported(String),
    /// The spec was not understood, or asks for what shoal does not have.
    #[error(transparent)]
    Spec(#[from] AcceptError),
    /// The core refused the command, or it could not be made durable.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Something failed here.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// Returns the error for something that is not there, in Docker's words.
    pub(super) fn not_found(kind: &str, name: &str) -> Self {
        Self::NotFound(format!("{kind} {} not found", shown(name)))
    }

    /// Returns the error for something that failed here, its causes included.
    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        Self::Internal(with_causes(error))
    }

    /// Returns the status that the answer has.
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Denied(_) => StatusCode::UNAUTHORIZED,
            Self::NotFound(_) | Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotSupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Spec(error) if error.is_unsupported() => StatusCode::NOT_IMPLEMENTED,
            Self::Spec(error) if error.is_missing() => StatusCode::NOT_FOUND,
            Self::Spec(_) => StatusCode::BAD_REQUEST,
            Self::Apply(error) => apply_status(error),
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

fn apply_status(error: &ApplyError) -> StatusCode {
    match error {
        ApplyError::Refused(refusal) => match refusal {
            CommandError::NameTaken(_)
            | CommandError::TooManyServices(_)
            | CommandError::VolumeElsewhere { .. }
            | CommandError::VolumeInUse { .. }
            | CommandError::ObjectTaken { .. }
            | CommandError::TooManyObjects { .. }
            | CommandError::NoRoom { .. } => StatusCode::CONFLICT,
            CommandError::NoSuchService(_) | CommandError::NoSuchNode(_) | CommandError::NoSuchObject { .. } => {
                StatusCode::NOT_FOUND
            }
            // Swarm answers 500, and clients match the end of the text.
            CommandError::OutOfSequence { .. }
            | CommandError::NodeOutOfSequence { .. }
            | CommandError::ObjectOutOfSequence { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            CommandError::Rename { .. }
            | CommandError::ModeChange(_)
            | CommandError::NodeIsUp(_)
            | CommandError::ObjectInUse { .. }
            | CommandError::TooManyLabels { .. }
            | CommandError::TooManyBytes { .. }
            | CommandError::NotKept { .. }
            | CommandError::Spec(_)
            | CommandError::NodeSpec(_) => StatusCode::BAD_REQUEST,
        },
        ApplyError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        ApplyError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Returns the error's text and those of its causes.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// Returns what a client sent, cut so that an answer or a log stays readable.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 200;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, message) = (self.status(), self.to_string());
        if status.is_server_error() {
            tracing::debug!(%status, message, "request refused");
        }
        (status, Json(ErrorResponse { message })).into_response()
    }
}
