//! Query parameters and path segments, parsed as Docker's engine parses them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;

use super::error::{ApiError, shown};
use super::time::parse_rfc3339;

/// The end of the year 9999, the last that RFC 3339 can write.
const SECONDS_MAX: u64 = 253_402_300_800;

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

impl Params {
    /// Returns a parameter as time since 1970, if it is given: as Docker's clients send it, seconds with a fraction, or
    /// as RFC 3339.
    pub(super) fn time(&self, name: &str) -> Result<Option<Duration>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let time = parse_rfc3339(text).map(Duration::from_millis).or_else(|| seconds(text));
        let time = time.filter(|time| time.as_secs() < SECONDS_MAX);
        let expected = "expected seconds since 1970, or a time as RFC 3339";
        time.map(Some).ok_or_else(|| ApiError::BadRequest(format!("invalid {name} {:?}: {expected}", shown(text))))
    }
}

/// Reads seconds with up to nine digits of a fraction.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Duration::new(whole.parse().ok()?, format!("{fraction:0<9}").parse().ok()?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        let time = |text: &str| Params(BTreeMap::from([("since".to_owned(), text.to_owned())])).time("since").ok();
        assert_eq!(time("1700000000.000000001"), Some(Some(Duration::new(1_700_000_000, 1))));
        assert_eq!(time("1.5"), Some(Some(Duration::from_millis(1_500))));
        assert_eq!(time("1970-01-01T00:00:02Z"), Some(Some(Duration::from_secs(2))));
        assert_eq!(time(""), Some(None));
        for text in ["-1", "1.1234567890", "1.x", "x", "99999999999999"] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
