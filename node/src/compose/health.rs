//! Health checks.

use bollard::models::HealthConfig;

use super::tree::{At, ComposeError, wrong};

/// Reads a service's `healthcheck`.
pub(super) fn read(at: &At<'_>) -> Result<HealthConfig, ComposeError> {
    let mut health = HealthConfig::default();
    let mut disabled = false;
    for (key, at) in at.entries()? {
        match key {
            "test" if at.is_list() => health.test = Some(at.texts()?),
            "test" => health.test = Some(vec!["CMD-SHELL".to_owned(), at.text()?]),
            "interval" => health.interval = Some(at.nanoseconds()?),
            "timeout" => health.timeout = Some(at.nanoseconds()?),
            "retries" => health.retries = Some(at.count()?),
            "start_period" => health.start_period = Some(at.nanoseconds()?),
            "start_interval" => health.start_interval = Some(at.nanoseconds()?),
            "disable" => disabled = at.truth()?,
            _ => return Err(at.unknown()),
        }
    }
    match (disabled, &health.test) {
        (false, _) => Ok(health),
        (true, None) => Ok(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        (true, Some(_)) => Err(wrong(at, "has a test and is disabled")),
    }
}
