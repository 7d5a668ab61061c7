//! Health checks: how a node finds out whether a task that runs also works. Docker's, and two of shoal's own.
//!
//! Carried out by the task's node; what the core knows of it is that such a task counts as running only once healthy.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::SpecError;

/// How a task is checked. What is absent is as the image says, or else by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is tried.
    pub test: HealthTest,
    /// Time between two tries, in milliseconds. Default 30 s, as Docker's.
    pub interval_ms: Option<u64>,
    /// How long one may take. Default 30 s.
    pub timeout_ms: Option<u64>,
    /// For how long after the start failures do not count. Default none.
    pub start_period_ms: Option<u64>,
    /// Time between two tries in that period. Default 5 s.
    pub start_interval_ms: Option<u64>,
    /// Failures in a row that make a task unhealthy. Default 3.
    pub retries: Option<u32>,
}

/// What is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthTest {
    /// What the image says.
    Image,
    /// Nothing, whatever the image says.
    None,
    /// A command in the container; well is exit code 0.
    Command(Vec<String>),
    /// A command line for the container's shell.
    Shell(String),
    /// A GET to the task's address; well is a status from 200 to 399.
    Http {
        /// Its TCP port.
        port: u16,
        /// Beginning with a slash.
        path: String,
    },
    /// A TCP connection to the task's address; well is that it comes about.
    Tcp {
        /// The port.
        port: u16,
    },
}

impl HealthCheck {
    /// Returns a check by this test with all else as it is by default.
    pub fn new(test: HealthTest) -> Self {
        let (interval_ms, timeout_ms, start_period_ms, start_interval_ms) = (None, None, None, None);
        Self { test, interval_ms, timeout_ms, start_period_ms, start_interval_ms, retries: None }
    }

    /// Checks what types cannot.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        let wrong = |reason: String| Err(SpecError::Option { what: "health check", reason });
        let times = [self.interval_ms, self.timeout_ms, self.start_interval_ms];
        if times.contains(&Some(0)) || self.retries == Some(0) {
            return wrong("no time and no number of retries may be zero".to_string());
        }
        match &self.test {
            HealthTest::Command(command) if command.first().is_none_or(String::is_empty) => {
                wrong("it has no command".to_string())
            }
            HealthTest::Command(command) if command.iter().any(|text| text.contains('\0')) => {
                wrong("its command has a zero byte".to_string())
            }
            HealthTest::Shell(line) if line.is_empty() || line.contains('\0') => {
                wrong("its command is empty or has a zero byte".to_string())
            }
            HealthTest::Http { port: 0, .. } | HealthTest::Tcp { port: 0 } => wrong("0 is no port".to_string()),
            HealthTest::Http { path, .. } if !is_path(path) => {
                wrong(format!("{path:?} is not a path that begins with a slash and has neither spaces nor \"#\""))
            }
            HealthTest::Image
            | HealthTest::None
            | HealthTest::Command(_)
            | HealthTest::Shell(_)
            | HealthTest::Http { .. }
            | HealthTest::Tcp { .. } => Ok(()),
        }
    }

    /// Returns an upper bound of the bytes of text in it.
    pub(super) fn weight(&self) -> usize {
        let text = match &self.test {
            HealthTest::Command(command) => command.iter().map(|text| text.len() + 8).sum(),
            HealthTest::Shell(text) | HealthTest::Http { path: text, .. } => text.len(),
            HealthTest::Image | HealthTest::None | HealthTest::Tcp { .. } => 0,
        };
        text + 64
    }
}

/// Tells whether it may stand in the first line of a request.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn tests_that_cannot_be_carried_out_are_refused() {
        let check = |test| HealthCheck::new(test).check();
        let http = |path: &str| check(HealthTest::Http { port: 80, path: path.to_string() });
        assert!(http("/").is_ok() && http("/healthz?full=1").is_ok());
        for path in ["", "healthz", "/a b", "/a\r\nHost: x", "/ä", "/a#b"] {
            assert!(http(path).is_err(), "{path:?}");
        }
        assert!(check(HealthTest::Tcp { port: 0 }).is_err());
        assert!(check(HealthTest::Command(vec![])).is_err());
        assert!(check(HealthTest::Shell(String::new())).is_err());
        let never = HealthCheck { interval_ms: Some(0), ..HealthCheck::new(HealthTest::Image) };
        assert!(never.check().is_err());
    }
}
