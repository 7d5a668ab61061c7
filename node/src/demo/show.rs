//! What the demo prints: one line per step, with the seconds since the start before it.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Prints progress to standard output.
#[derive(Debug)]
pub(super) struct Show {
    begun: Instant,
}

impl Show {
    /// Starts to count the seconds.
    pub(super) fn new() -> Self {
        Self { begun: Instant::now() }
    }

    /// Prints what happens now.
    pub(super) fn step(&self, text: impl Display) {
        self.print(&format!("[{:5.1} s] {text}", self.begun.elapsed().as_secs_f64()));
    }

    /// Prints something that belongs to the step before.
    pub(super) fn detail(&self, text: impl Display) {
        for line in text.to_string().lines() {
            self.print(&format!("          {line}"));
        }
    }

    /// Prints a line as it is.
    pub(super) fn print(&self, line: &str) {
        // A closed pipe must not keep the demo from cleaning up.
        let _ = writeln!(io::stdout().lock(), "{}", line.trim_end());
    }
}

/// Returns a span in seconds, for people.
pub(super) fn seconds(span: Duration) -> String {
    format!("{:.2} s", span.as_secs_f64())
}

/// Returns bytes in MiB, for people.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
