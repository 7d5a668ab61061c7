//! Query parameters and path segments, parsed as Docker's engine parses them.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;

use super::error::{ApiError, shown};

/// The parameters of a request's query.
#[derive(Debug, Default)]
pub(super) struct Params(BTreeMap<String, String>);

/// The one variable segment of a request's path, decoded.
#[derive(Debug)]
pub(super) struct Segment(pub(super) String);

impl Params {
    /// Returns a parameter, unless it is absent or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Returns a parameter as a truth value: everything but Docker's words for no counts as yes.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| !matches!(text.to_ascii_lowercase().as_str(), "0" | "no" | "false" | "none"))
    }

    /// Returns a parameter that must be there as a number.
    pub(super) fn number(&self, name: &str) -> Result<u64, ApiError> {
        let text = self.text(name).unwrap_or_default();
        text.parse().map_err(|_| ApiError::BadRequest(format!("invalid {name} {:?}: expected a number", shown(text))))
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Query::try_from_uri(&parts.uri).map_or_else(|_| Self::default(), |Query(map)| Self(map)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(text)| Self(text)).map_err(|error| ApiError::BadRequest(error.body_text()))
    }
}
