//! Bodies: JSON within a bound, refused with the place where it stops making sense.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use futures::TryStreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{ApiError, shown};
use super::spec::of_models;

/// Longest JSON body in bytes. A service spec may have half of `VALUE_BYTES_MAX`, so this is ample.
pub(super) const JSON_BYTES_MAX: usize = 1 << 20;

/// A body of JSON of which every field that says something is known to `T`.
#[derive(Debug)]
pub(super) struct Parsed<T>(pub(super) T);

impl<T, S> FromRequest<S> for Parsed<T>
where
    T: DeserializeOwned + Serialize,
    S: Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read(request.into_body()).await?;
        parse(&bytes).map(Self)
    }
}

/// Reads a whole body, within the bound.
async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    let unreadable = |error| ApiError::BadRequest(format!("the request body cannot be read: {error}"));
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.try_next().await.map_err(unreadable)? {
        if bytes.len() + chunk.len() > JSON_BYTES_MAX {
            drain(Body::from_stream(chunks)).await;
            return Err(ApiError::TooLarge { max_bytes: JSON_BYTES_MAX as u64 });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Reads away what a refused request still sends, within a bound: a client that cannot finish its request reports a
/// broken connection instead of the answer.
pub(super) async fn drain(body: Body) {
    const BYTES_MAX: u64 = 64 << 20;
    let mut chunks = body.into_data_stream();
    let mut bytes = 0;
    while let Ok(Some(chunk)) = chunks.try_next().await {
        bytes += chunk.len() as u64;
        if bytes > BYTES_MAX {
            return;
        }
    }
}

/// Parses JSON, and refuses fields that `T` does not have: what is not understood must not be ignored.
fn parse<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::BadRequest("the request has no body, expected JSON".to_owned()));
    }
    let malformed =
        |error: serde_json::Error| ApiError::BadRequest(format!("malformed JSON: {}", shown(&error.to_string())));
    let mut given: Value = serde_json::from_slice(bytes).map_err(malformed)?;
    // What is spelt as the models do is parsed from the text, so that errors name a place in it.
    let parsed: T = match of_models(&mut given) {
        true => T::deserialize(&given).map_err(malformed)?,
        false => serde_json::from_slice(bytes).map_err(malformed)?,
    };
    let understood = serde_json::to_value(&parsed).map_err(|error| ApiError::internal(&error))?;
    match unknown_field(&given, &understood) {
        Some(field) => Err(ApiError::BadRequest(format!("unknown field {}", shown(&field)))),
        None => Ok(parsed),
    }
}

/// Returns the path of a field that says something in `given` and is missing from `understood`.
fn unknown_field(given: &Value, understood: &Value) -> Option<String> {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => given.iter().find_map(|(key, value)| {
            let below = match understood.get(key) {
                Some(understood) => unknown_field(value, understood)?,
                None if is_empty(value) => return None,
                None => String::new(),
            };
            Some(if below.is_empty() { key.clone() } else { format!("{key}.{below}") })
        }),
        (Value::Array(given), Value::Array(understood)) => {
            given.iter().zip(understood).find_map(|(given, understood)| unknown_field(given, understood))
        }
        _ => None,
    }
}

/// Tells whether a value says nothing: Go's clients send zero values for what was not set.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.values().all(is_empty),
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ServiceSpec;

    use super::*;

    fn error(text: &str) -> String {
        parse::<ServiceSpec>(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn malformed_json_is_refused_with_its_position() {
        assert!(error("{\n  \"Name\": ]").contains("line 2 column 11"));
        assert!(error(r#"{"Mode":{"Replicated":{"Replicas":"three"}}}"#).contains("column"));
        assert!(error("").contains("no body"));
    }

    #[test]
    fn fields_that_are_not_understood_are_refused_unless_they_say_nothing() {
        assert_eq!(
            error(r#"{"TaskTemplate":{"ContainerSpec":{"Imagee":"web"}}}"#),
            "unknown field TaskTemplate.ContainerSpec.Imagee"
        );
        let quirk = r#"{"TaskTemplate":{"ContainerSpec":{"Healthcheck":{"Test":["NONE"]}}}}"#;
        assert!(parse::<ServiceSpec>(quirk.as_bytes()).is_ok());
        assert_eq!(error(r#"{"name":"web"}"#), "unknown field name");
        let quiet = r#"{"Name":"web","New":{"A":null,"B":[],"C":{},"D":0,"E":false,"F":""}}"#;
        assert_eq!(parse::<ServiceSpec>(quiet.as_bytes()).unwrap().name.as_deref(), Some("web"));
    }

    #[test]
    fn json_that_is_nested_without_end_is_refused() {
        assert!(error(&"[".repeat(100_000)).contains("malformed JSON"));
    }
}
