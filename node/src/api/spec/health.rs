//! Health checks, between Docker's words and shoal's.
//!
//! Docker's tests are `NONE`, `CMD` and `CMD-SHELL`. Ours beside them: `["HTTP", PORT, PATH]` and `["TCP", PORT]`.

use bollard::models::HealthConfig;
use shoal_cluster::intent::service::health::{HealthCheck, HealthTest};

use super::accept::{AcceptError, milliseconds, texts};
use super::show::nanoseconds;
use crate::api::error::shown;

/// Accepts a health check; one that says nothing is none.
pub(in crate::api) fn accept(config: HealthConfig) -> Result<Option<HealthCheck>, AcceptError> {
    let time = |field, ns: Option<i64>| {
        let ms = milliseconds(field, ns.unwrap_or_default())?;
        Ok::<_, AcceptError>((ms > 0).then_some(ms))
    };
    let retries = u32::try_from(config.retries.unwrap_or_default());
    let retries = retries.map_err(|_| AcceptError::Invalid {
        field: "Healthcheck.Retries",
        reason: "it is negative, or too great".to_owned(),
    })?;
    let check = HealthCheck {
        test: test(texts("Healthcheck.Test", config.test)?)?,
        interval_ms: time("Healthcheck.Interval", config.interval)?,
        timeout_ms: time("Healthcheck.Timeout", config.timeout)?,
        start_period_ms: time("Healthcheck.StartPeriod", config.start_period)?,
        start_interval_ms: time("Healthcheck.StartInterval", config.start_interval)?,
        retries: (retries > 0).then_some(retries),
    };
    Ok((check != HealthCheck::new(HealthTest::Image)).then_some(check))
}

fn test(words: Vec<String>) -> Result<HealthTest, AcceptError> {
    let invalid = |reason: String| AcceptError::Invalid { field: "Healthcheck.Test", reason };
    let port = |text: &str| text.parse().map_err(|_| invalid(format!("{:?} is not a port", shown(text))));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match &words[..] {
        [] => Ok(HealthTest::Image),
        ["NONE"] => Ok(HealthTest::None),
        ["CMD", command @ ..] => Ok(HealthTest::Command(command.iter().map(|&word| word.to_owned()).collect())),
        ["CMD-SHELL", line] => Ok(HealthTest::Shell((*line).to_owned())),
        ["HTTP", number] => Ok(HealthTest::Http { port: port(number)?, path: "/".to_owned() }),
        ["HTTP", number, path] => Ok(HealthTest::Http { port: port(number)?, path: (*path).to_owned() }),
        ["TCP", number] => Ok(HealthTest::Tcp { port: port(number)? }),
        _ => Err(invalid(
            "expected [\"NONE\"], [\"CMD\", COMMAND…], [\"CMD-SHELL\", LINE], [\"HTTP\", PORT, PATH] or [\"TCP\", PORT]"
                .to_owned(),
        )),
    }
}

/// Shows a health check.
pub(in crate::api) fn show(check: &HealthCheck) -> HealthConfig {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let test = match &check.test {
        HealthTest::Image => Vec::new(),
        HealthTest::None => words(&["NONE"]),
        HealthTest::Command(command) => [words(&["CMD"]), command.clone()].concat(),
        HealthTest::Shell(line) => words(&["CMD-SHELL", line]),
        HealthTest::Http { port, path } => words(&["HTTP", &port.to_string(), path]),
        HealthTest::Tcp { port } => words(&["TCP", &port.to_string()]),
    };
    HealthConfig {
        test: (!test.is_empty()).then_some(test),
        interval: check.interval_ms.map(nanoseconds),
        timeout: check.timeout_ms.map(nanoseconds),
        retries: check.retries.map(i64::from),
        start_period: check.start_period_ms.map(nanoseconds),
        start_interval: check.start_interval_ms.map(nanoseconds),
    }
}
