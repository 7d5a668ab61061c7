//! Spelling: one field that Docker's engine and the models we parse with write differently.
//!
//! Docker's clients say `Healthcheck`, as its engine does; the models follow the API's description, `HealthCheck`.
//! Without this, a health check would be an unknown field of a service, and be lost by programs that look for Docker's.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use crate::api::error::ApiError;

/// As Docker's engine and clients write it.
const DOCKER: &str = "Healthcheck";
/// As the models write it.
const MODELS: &str = "HealthCheck";

/// An answer spelt as Docker spells it.
#[derive(Debug)]
pub(in crate::api) struct Spelt<T>(pub(in crate::api) T);

impl<T: Serialize> IntoResponse for Spelt<T> {
    fn into_response(self) -> Response {
        match serde_json::to_value(self.0) {
            Ok(mut value) => {
                of_docker(&mut value);
                Json(value).into_response()
            }
            Err(error) => ApiError::internal(&error).into_response(),
        }
    }
}

/// Spells a service or task, its spec, or a list of them as Docker does; tells whether anything changed.
fn of_docker(value: &mut Value) -> bool {
    rename(value, MODELS, DOCKER)
}

/// Spells the same as the models do.
pub fn of_models(value: &mut Value) -> bool {
    rename(value, DOCKER, MODELS)
}

fn rename(value: &mut Value, from: &str, to: &str) -> bool {
    match value {
        Value::Array(items) => {
            let mut changed = false;
            for item in items {
                changed |= rename(item, from, to);
            }
            changed
        }
        Value::Object(fields) => {
            let mut changed = false;
            // Nowhere else: a label may have any name.
            for parent in ["Spec", "PreviousSpec", "TaskTemplate"] {
                changed |= fields.get_mut(parent).is_some_and(|below| rename(below, from, to));
            }
            if let Some(Value::Object(container)) = fields.get_mut("ContainerSpec")
                && let Some(check) = container.remove(from)
            {
                container.insert(to.to_owned(), check);
                changed = true;
            }
            changed
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_health_check_is_spelt_anew() {
        let service = |spelling: &str| {
            json!({ "Spec": {
                "Labels": { "Healthcheck": "a", "HealthCheck": "b" },
                "TaskTemplate": { "ContainerSpec": { "Image": "web", spelling: { "Retries": 2 } } },
            } })
        };
        let mut list = json!([service("HealthCheck"), service("Healthcheck"), {}]);
        assert!(of_docker(&mut list));
        assert_eq!(list, json!([service("Healthcheck"), service("Healthcheck"), {}]));
        assert!(of_models(&mut list) && !of_models(&mut list));
        assert_eq!(list[0], service("HealthCheck"));
    }
}
