//! Container output on disk: JSON lines as Docker's `json-file`, in a few files of bounded size.
//!
//! Input: bytes from a container's standard output and error, which are hostile and may be binary. Output: lines
//! `{"log":…,"stream":…,"time":…}`; a [`LogReader`] reads them back and follows them. A full disk loses lines, it never
//! stops a container.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::container::LogLimits;

mod read;
mod time;

pub(crate) use read::FILES_MAX;
pub use read::{LogQuery, LogReader};
pub use time::rfc3339;

/// Longest line kept in one piece, in bytes; longer ones are split, as in Docker.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// One line of a container's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The text with its line feed, if it had one; bytes that are not UTF-8 are replaced.
    pub log: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// When it was read, RFC 3339 in UTC with nanoseconds.
    pub time: String,
}

#[derive(Serialize)]
struct BorrowedLine<'a> {
    log: &'a str,
    stream: &'a str,
    time: &'a str,
}

/// The writing end: one per container, in its shim.
pub(crate) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    limits: LogLimits,
}

impl LogFile {
    /// Begins a log. Where there can be no file (a full disk), lines are lost until there can.
    pub(crate) fn create(path: PathBuf, limits: LogLimits) -> Self {
        let file = open(&path).ok();
        Self { path, file, bytes: 0, limits }
    }

    fn write(&mut self, lines: &[u8]) {
        if self.bytes + lines.len() as u64 > self.limits.file_bytes_max && self.bytes > 0 {
            self.rotate();
        }
        if self.file.is_none() {
            self.file = open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return };
        match file.write_all(lines) {
            Ok(()) => self.bytes += lines.len() as u64,
            Err(_) => {
                // Half a line would spoil the next one.
                let _ = file.set_len(self.bytes).and_then(|()| file.seek(SeekFrom::Start(self.bytes)));
            }
        }
    }

    fn rotate(&mut self) {
        let kept = self.limits.files_max.max(1) - 1;
        for number in (1..=kept).rev() {
            let _ = fs::rename(numbered(&self.path, number - 1), numbered(&self.path, number));
        }
        self.file = open(&self.path).ok();
        self.bytes = 0;
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(true).write(true).mode(0o600).open(path)
}

/// The file put aside `number` times; 0 is the one being written.
fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_path_buf();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Cuts one stream into lines.
pub(crate) struct LineCutter {
    stream: &'static str,
    partial: Vec<u8>,
}

impl LineCutter {
    pub(crate) fn new(stream: &'static str) -> Self {
        Self { stream, partial: Vec::new() }
    }

    /// Returns the name of the stream.
    pub(crate) fn stream(&self) -> &'static str {
        self.stream
    }

    /// Takes what was read and writes the lines that it completes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], file: &mut LogFile) {
        let time = rfc3339(SystemTime::now());
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.partial.len();
            let window = &bytes[..bytes.len().min(room)];
            let end = window.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let complete = end.is_some() || window.len() == room;
            let (head, rest) = bytes.split_at(end.unwrap_or(window.len()));
            self.partial.extend_from_slice(head);
            bytes = rest;
            if complete {
                self.flush(&time, &mut out);
            }
        }
        if !out.is_empty() {
            file.write(&out);
        }
    }

    /// Writes what is left when the stream has ended without a line feed.
    pub(crate) fn finish(&mut self, file: &mut LogFile) {
        let mut out = Vec::new();
        self.flush(&rfc3339(SystemTime::now()), &mut out);
        file.write(&out);
    }

    fn flush(&mut self, time: &str, out: &mut Vec<u8>) {
        if self.partial.is_empty() {
            return;
        }
        let log = String::from_utf8_lossy(&self.partial);
        if serde_json::to_writer(&mut *out, &BorrowedLine { log: &log, stream: self.stream, time }).is_ok() {
            out.push(b'\n');
        }
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(path: &Path, lines_max: usize) -> Vec<LogLine> {
        let query = LogQuery { tail: Some(lines_max), ..LogQuery::default() };
        let mut reader = LogReader::open(path.to_path_buf(), query).unwrap();
        let mut lines = Vec::new();
        loop {
            let batch = reader.read().unwrap();
            if batch.is_empty() {
                return lines;
            }
            lines.extend(batch);
        }
    }

    #[test]
    fn lines_are_joined_across_reads_and_split_when_endless() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("log.json");
        let mut file = LogFile::create(path.clone(), LogLimits::default());
        let mut lines = LineCutter::new("stdout");
        lines.feed(b"one\ntw", &mut file);
        lines.feed(b"o\n\xff\n", &mut file);
        lines.feed(&vec![b'x'; LINE_BYTES_MAX + 5], &mut file);
        lines.finish(&mut file);
        let read: Vec<String> = tail(&path, 100).into_iter().map(|line| line.log).collect();
        assert_eq!(read[..3], ["one\n", "two\n", "\u{fffd}\n"]);
        assert_eq!(read[3].len(), LINE_BYTES_MAX);
        assert_eq!(read[4], "xxxxx");
        assert_eq!(tail(&path, 1)[0].log, "xxxxx");
        assert_eq!(tail(&path, 0), []);
    }

    #[test]
    fn a_flood_of_output_keeps_files_of_bounded_number_and_size() {
        for files_max in [1, 2, 5] {
            let top = tempfile::tempdir().unwrap();
            let path = top.path().join("log.json");
            let mut file = LogFile::create(path.clone(), LogLimits { file_bytes_max: 4096, files_max });
            let mut lines = LineCutter::new("stderr");
            for number in 0..1000 {
                lines.feed(format!("line {number}\n").as_bytes(), &mut file);
            }
            for number in 0..files_max {
                assert!(fs::metadata(numbered(&path, number)).unwrap().len() <= 4096);
            }
            assert_eq!(fs::read_dir(top.path()).unwrap().count(), files_max as usize);
            let last = tail(&path, 10);
            assert_eq!((last.len(), last[9].log.as_str(), last[0].log.as_str()), (10, "line 999\n", "line 990\n"));
        }
    }
}
