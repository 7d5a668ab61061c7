//! Where results go: standard output, and some lines of progress on standard error while a person watches.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::api::status::Stored;

/// The results of one command.
#[derive(Debug)]
pub(super) struct Output {
    /// How many lines of progress are shown now.
    shown_lines: usize,
    terminal: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { shown_lines: 0, terminal: io::stderr().is_terminal() }
    }

    /// Writes a line of results.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.clear_progress();
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// Writes a value as JSON with four spaces, as Docker's `inspect` does.
    pub(super) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        value.serialize(&mut Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    ")))?;
        Ok(self.line(&String::from_utf8_lossy(&bytes))?)
    }

    /// Writes a line for people beside the results.
    pub(super) fn note(&mut self, text: &str) {
        self.clear_progress();
        // Nobody can be told if standard error is gone.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Says on how many disks a change is, and what the node warns of.
    pub(super) fn stored(&mut self, stored: &Stored) {
        for warning in stored.warnings.iter().flatten() {
            self.note(&format!("warning: {warning}"));
        }
        if stored.stored_on > 1 {
            self.note(&format!("stored on {} nodes", stored.stored_on));
        }
    }

    /// Shows how far something has come, in place of what was shown before; shows nothing if nobody watches.
    pub(super) fn progress(&mut self, text: &str) {
        if self.terminal {
            self.clear_progress();
            let mut err = io::stderr().lock();
            let _ = write!(err, "{text}").and_then(|()| err.flush());
            self.shown_lines = text.lines().count();
        }
    }

    fn clear_progress(&mut self) {
        if self.shown_lines > 0 {
            // Each line is cleared, from the last one up.
            let up = "\x1b[1A\r\x1b[2K".repeat(self.shown_lines - 1);
            let _ = write!(io::stderr().lock(), "\r\x1b[2K{up}");
            self.shown_lines = 0;
        }
    }
}

/// Tells whether an error only says that nobody reads the results any more, as with `| head`.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
