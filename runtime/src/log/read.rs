//! Reading a log back, from any point, while it is written and put aside by its shim.
//!
//! Input: the path of the log and a [`LogQuery`]. Output: lines in the order in which they were written, in batches; an
//! empty batch means that there is nothing more for now. A reader that is slower than the writer loses what the writer
//! has thrown away, and goes on with what is left.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::{LogLine, numbered};

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// A line longer than this in JSON was not written by us; six bytes for each of a long line's, and what is around it.
const JSON_BYTES_MAX: usize = 8 * super::LINE_BYTES_MAX;

/// Most files that are looked for, the ceiling of `LogLimits::files_max`.
pub(crate) const FILES_MAX: u32 = 100;

/// Which lines to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// Only the last so many, of both streams. `None`: all that are kept.
    pub tail: Option<usize>,
    /// Only lines of this time or later, as [`super::rfc3339`] renders it.
    pub since: Option<String>,
    /// Only lines before this time.
    pub until: Option<String>,
    /// Whether to read standard output.
    pub stdout: bool,
    /// Whether to read standard error.
    pub stderr: bool,
    /// Whether to go on with what comes, until the container has ended.
    pub follow: bool,
}

impl Default for LogQuery {
    fn default() -> Self {
        Self { tail: None, since: None, until: None, stdout: true, stderr: true, follow: false }
    }
}

/// A place in a log.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    query: LogQuery,
    file: Option<File>,
    /// Bytes of a line whose end has not been read.
    partial: Vec<u8>,
}

impl LogReader {
    /// Finds where to begin. A log that does not exist is empty.
    pub fn open(path: PathBuf, query: LogQuery) -> io::Result<Self> {
        let mut reader = Self { path, query, file: None, partial: Vec::new() };
        let mut left = reader.query.tail.unwrap_or(usize::MAX);
        for number in 0..FILES_MAX {
            let Some(mut file) = reader.open_file(number)? else { break };
            let (begin, found) = if left == usize::MAX { (0, 0) } else { find_last_lines(&mut file, left)? };
            file.seek(SeekFrom::Start(begin))?;
            reader.file = Some(file);
            left = if left == usize::MAX { left } else { left - found };
            if left == 0 {
                break;
            }
        }
        Ok(reader)
    }

    /// Reads on: at most some hundred lines; none if there are no more for now.
    pub fn read(&mut self) -> io::Result<Vec<LogLine>> {
        loop {
            let Some(file) = &mut self.file else {
                self.file = self.oldest()?;
                if self.file.is_none() {
                    return Ok(Vec::new());
                }
                continue;
            };
            let mut chunk = vec![0; CHUNK_BYTES];
            let length = file.read(&mut chunk)?;
            if length > 0 {
                let lines = self.take_lines(&chunk[..length]);
                if !lines.is_empty() {
                    return Ok(lines);
                }
            } else if !self.advance()? {
                return Ok(Vec::new());
            }
        }
    }

    fn take_lines(&mut self, chunk: &[u8]) -> Vec<LogLine> {
        let mut lines = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                lines.extend(serde_json::from_slice(&self.partial).ok().filter(|line| self.wanted(line)));
                self.partial.clear();
            } else if self.partial.len() > JSON_BYTES_MAX {
                self.partial.clear();
            }
        }
        lines
    }

    fn wanted(&self, line: &LogLine) -> bool {
        let query = &self.query;
        let stream = if line.stream == "stderr" { query.stderr } else { query.stdout };
        stream
            && query.since.as_ref().is_none_or(|since| line.time >= *since)
            && query.until.as_ref().is_none_or(|until| line.time < *until)
    }

    /// Moves from a file that has been put aside to the one after it. Returns false if there is nothing to read now.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        let own = file.metadata()?;
        let mut next = None;
        for number in 0..FILES_MAX {
            match fs::metadata(numbered(&self.path, number)) {
                Ok(found) if found.ino() == own.ino() && found.dev() == own.dev() => {
                    if next.is_none() {
                        return Ok(false);
                    }
                    break;
                }
                Ok(_) => next = Some(number),
                Err(_) => break,
            }
        }
        // It was put aside since it was read: what was written to it until then comes first.
        let position = file.stream_position()?;
        if file.metadata()?.len() > position {
            return Ok(true);
        }
        self.partial.clear();
        let Some(number) = next else { return Ok(false) };
        // It may have been put aside once more in between; the next call finds its place by its number again.
        self.file = self.open_file(number)?;
        Ok(self.file.is_some())
    }

    fn oldest(&self) -> io::Result<Option<File>> {
        let mut oldest = None;
        for number in 0..FILES_MAX {
            match self.open_file(number)? {
                Some(file) => oldest = Some(file),
                None => break,
            }
        }
        Ok(oldest)
    }

    fn open_file(&self, number: u32) -> io::Result<Option<File>> {
        match File::open(numbered(&self.path, number)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Returns where the last `wanted` lines of a file begin, and how many there are.
fn find_last_lines(file: &mut File, wanted: usize) -> io::Result<(u64, usize)> {
    let size = file.metadata()?.len();
    let (mut end, mut found) = (size, 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    while end > 0 {
        let begin = end.saturating_sub(CHUNK_BYTES as u64);
        let part = &mut chunk[..usize::try_from(end - begin).unwrap_or(CHUNK_BYTES)];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(part)?;
        for (index, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            if found == wanted {
                return Ok((begin + index as u64 + 1, found));
            }
            found += 1;
        }
        end = begin;
    }
    Ok((0, found))
}

#[cfg(test)]
mod tests {
    use super::super::{LineCutter, LogFile};
    use super::*;
    use crate::container::LogLimits;

    fn all(reader: &mut LogReader) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let batch = reader.read().unwrap();
            if batch.is_empty() {
                return lines;
            }
            lines.extend(batch.into_iter().map(|line| line.log.trim_end().to_owned()));
        }
    }

    #[test]
    fn a_follower_misses_nothing_while_files_are_put_aside() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("log.json");
        let mut file = LogFile::create(path.clone(), LogLimits { file_bytes_max: 1000, files_max: 4 });
        let mut cutter = LineCutter::new("stdout");
        let mut reader = LogReader::open(path, LogQuery { follow: true, ..LogQuery::default() }).unwrap();
        let mut seen = Vec::new();
        for number in 0..500 {
            cutter.feed(format!("{number}\n").as_bytes(), &mut file);
            // Less often than files are put aside, more often than they are thrown away.
            if number % 13 == 0 {
                seen.extend(all(&mut reader));
            }
        }
        seen.extend(all(&mut reader));
        assert_eq!(seen, (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_that_was_left_behind_goes_on_with_what_is_left() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("log.json");
        let mut file = LogFile::create(path.clone(), LogLimits { file_bytes_max: 1000, files_max: 2 });
        let mut cutter = LineCutter::new("stdout");
        cutter.feed(b"first\n", &mut file);
        let mut reader = LogReader::open(path, LogQuery::default()).unwrap();
        assert_eq!(all(&mut reader), ["first"]);
        for number in 0..500 {
            cutter.feed(format!("{number}\n").as_bytes(), &mut file);
        }
        let seen = all(&mut reader);
        let numbers: Vec<u32> = seen.iter().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers.last(), Some(&499));
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]) && numbers.len() < 500, "{numbers:?}");
    }

    #[test]
    fn tail_spans_files_and_times_and_streams_select() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("log.json");
        let mut file = LogFile::create(path.clone(), LogLimits { file_bytes_max: 500, files_max: 10 });
        let (mut out, mut err) = (LineCutter::new("stdout"), LineCutter::new("stderr"));
        for number in 0..20 {
            let cutter = if number % 2 == 0 { &mut out } else { &mut err };
            cutter.feed(format!("{number}\n").as_bytes(), &mut file);
        }
        let read = |query: LogQuery| all(&mut LogReader::open(path.clone(), query).unwrap());
        let default = LogQuery::default();
        assert_eq!(read(default.clone()).len(), 20);
        assert_eq!(read(LogQuery { tail: Some(9), ..default.clone() })[0], "11");
        assert_eq!(read(LogQuery { tail: Some(4), stderr: false, ..default.clone() }), ["16", "18"]);
        let mut reader = LogReader::open(path.clone(), default.clone()).unwrap();
        let mut lines = Vec::new();
        while lines.len() < 20 {
            lines.extend(reader.read().unwrap());
        }
        let (since, until) = (Some(lines[5].time.clone()), Some(lines[15].time.clone()));
        assert_eq!(read(LogQuery { since, until, ..default })[0], "5");
    }
}
