//! Container output on disk: JSON lines as Docker's `json-file`, in two files of bounded size.
//!
//! Input: bytes from a container's standard output and error, which are hostile and may be binary. Output: lines
//! `{"log":…,"stream":…,"time":…}`; [`tail`] reads them back. A full disk loses lines, it never stops a container.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Size at which a log file is put aside and a new one begun, in bytes; so much and the one put aside are kept.
pub const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// Longest line kept in one piece, in bytes; longer ones are split, as in Docker.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Most that [`tail`] reads back, in bytes of JSON.
const TAIL_BYTES_MAX: u64 = 1024 * 1024;

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
    bytes_max: u64,
}

impl LogFile {
    pub(crate) fn create(path: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self { path, file: Some(file), bytes: 0, bytes_max })
    }

    fn write(&mut self, lines: &[u8]) {
        if self.bytes + lines.len() as u64 > self.bytes_max && self.bytes > 0 {
            self.rotate();
        }
        if let Some(file) = &mut self.file
            && file.write_all(lines).is_ok()
        {
            self.bytes += lines.len() as u64;
        }
    }

    fn rotate(&mut self) {
        let _ = fs::rename(&self.path, rotated(&self.path));
        self.file = open(&self.path).ok();
        self.bytes = 0;
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(true).write(true).mode(0o600).open(path)
}

fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
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

/// Reads the last lines of a log, at most `lines_max` and at most the last mebibyte. A log that does not exist is empty.
pub fn tail(path: &Path, lines_max: usize) -> io::Result<Vec<LogLine>> {
    let mut bytes = read_end(path, TAIL_BYTES_MAX)?;
    let left = TAIL_BYTES_MAX.saturating_sub(bytes.len() as u64);
    let mut earlier = read_end(&rotated(path), left)?;
    earlier.append(&mut bytes);
    let lines = earlier.split(|byte| *byte == b'\n').rev();
    let mut lines: Vec<LogLine> = lines.filter_map(|line| serde_json::from_slice(line).ok()).take(lines_max).collect();
    lines.reverse();
    Ok(lines)
}

fn read_end(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Renders a time as `2024-02-29T12:34:56.000000789Z`; times before 1970 as 1970.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_from_days(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_nanos()
    )
}

/// Gregorian date of a day since 1970-01-01, by Howard Hinnant's `civil_from_days` (years start in March).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_rendered_as_docker_does() {
        let at = |seconds, nanos| rfc3339(UNIX_EPOCH + Duration::new(seconds, nanos));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(1_709_210_096, 789), "2024-02-29T12:34:56.000000789Z");
        assert_eq!(at(4_102_444_799, 0), "2099-12-31T23:59:59.000000000Z");
    }

    #[test]
    fn lines_are_joined_across_reads_and_split_when_endless() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("log.json");
        let mut file = LogFile::create(path.clone(), FILE_BYTES_MAX).unwrap();
        let mut lines = LineCutter::new("stdout");
        lines.feed(b"one\ntw", &mut file);
        lines.feed(b"o\n\xff\n", &mut file);
        lines.feed(&vec![b'x'; LINE_BYTES_MAX + 5], &mut file);
        lines.finish(&mut file);
        let read: Vec<String> = tail(&path, 100).unwrap().into_iter().map(|line| line.log).collect();
        assert_eq!(read[..3], ["one\n", "two\n", "\u{fffd}\n"]);
        assert_eq!(read[3].len(), LINE_BYTES_MAX);
        assert_eq!(read[4], "xxxxx");
        assert_eq!(tail(&path, 1).unwrap()[0].log, "xxxxx");
    }

    #[test]
    fn a_flood_of_output_keeps_two_files_of_bounded_size() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("log.json");
        let mut file = LogFile::create(path.clone(), 4096).unwrap();
        let mut lines = LineCutter::new("stderr");
        for number in 0..1000 {
            lines.feed(format!("line {number}\n").as_bytes(), &mut file);
        }
        assert!(fs::metadata(&path).unwrap().len() <= 4096);
        assert!(fs::metadata(rotated(&path)).unwrap().len() <= 4096);
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 2);
        let last = tail(&path, 50).unwrap();
        assert_eq!((last.len(), last[49].log.as_str(), last[0].log.as_str()), (50, "line 999\n", "line 950\n"));
    }
}
