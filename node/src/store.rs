//! The store: what this node must not forget, as opaque records in an append-only log.
//!
//! Input: batches of records. Output: the same records at the next start, and a number that grows with every start.
//! A batch is durable when [`Store::append`] returns, all of it or none of it. Knows nothing of what records mean.

mod directory;
pub(crate) mod file;
mod log;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tracing::{info, warn};

pub use directory::DataDirectory;
use log::Header;

/// Largest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// The log is left alone below this size, in bytes, however small its snapshot is.
const REWRITE_BYTES_MIN: usize = 1 << 20;
/// The log is rewritten when it has grown to this many times its last snapshot.
const REWRITE_FACTOR: usize = 4;
/// Payload of one frame of a snapshot, in bytes, from which the next frame begins.
const SNAPSHOT_FRAME_BYTES: usize = 1 << 20;

const _: () = assert!(RECORD_BYTES_MAX + SNAPSHOT_FRAME_BYTES + 4 <= log::FRAME_BYTES_MAX);

/// Why the store cannot be used. Unless said otherwise, nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory cannot be made or opened.
    #[error("cannot use the data directory {}: {source}; choose another with --data-dir or fix its owner and mode", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the data directory.
    #[error("another shoal is using the data directory {}; stop it, or choose another directory with --data-dir", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file of the store cannot be read.
    #[error("cannot read {}: {source}; fix its owner and mode, or the disk", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A write or its fsync failed. What was to be written may or may not be there at the next start, and no more
    /// is written until then: after a failed fsync nobody knows what the disk holds.
    #[error("cannot write {}: {source}; make room or replace the disk, then start the node again", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write failed, see [`StoreError::Write`].
    #[error("an earlier write to {} failed, so no more is written; start the node again", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
    },
    /// The file does not begin like a log of ours.
    #[error("{} is not a log of shoal, or its first bytes are damaged; restore it from a backup, or move the data directory away and join again", path.display())]
    NotALog {
        /// The file.
        path: PathBuf,
    },
    /// The log holds the state of another shoal.
    #[error("{} holds the state of another shoal; choose another directory with --data-dir, or move this one away", path.display())]
    OtherShoal {
        /// The file.
        path: PathBuf,
    },
    /// A batch that was acknowledged is damaged.
    #[error("{} is damaged at byte {at}, before acknowledged records at byte {next}, so the disk has lost data; restore the file from a backup, or move the data directory away and join again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Offset in bytes of the damage.
        at: usize,
        /// Offset in bytes of the next whole batch.
        next: usize,
    },
    /// The file that counts the starts is missing or unreadable beside a log that is there.
    #[error("{} is missing or damaged, so old numbers of this node could be used twice; restore it from a backup, or move the data directory away and join again", path.display())]
    Epoch {
        /// The file.
        path: PathBuf,
    },
    /// A record is longer than [`RECORD_BYTES_MAX`], or a batch too long for one frame.
    #[error("a batch of {bytes} bytes is too long for the store, the most is {max}")]
    TooLong {
        /// Length of the batch in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
}

/// The log of one node. Not shared: the driver owns it.
#[derive(Debug)]
pub struct Store {
    log_path: PathBuf,
    epoch_path: PathBuf,
    file: File,
    header: Header,
    /// Length of the log in bytes.
    length: usize,
    /// Length in bytes that the log had when it was last a snapshot.
    snapshot: usize,
    failed: bool,
}

impl Store {
    /// Opens the store of the shoal `owner` (the fingerprint of its CA) in a locked data directory, or makes an empty one.
    ///
    /// Returns all records that were acknowledged, oldest first. A torn last batch, which nobody was promised, is cut
    /// off with a warning; damage before the last batch is an error.
    pub fn open(directory: &DataDirectory, owner: [u8; 32]) -> Result<(Self, Vec<Vec<u8>>), StoreError> {
        let folder = directory.path().join("state");
        let (log_path, epoch_path) = (folder.join("log"), folder.join("epoch"));
        if !log_path.exists() {
            return Self::create(&folder, log_path, epoch_path, owner).map(|store| (store, Vec::new()));
        }
        let bytes = fs::read(&log_path).map_err(|source| StoreError::Read { path: log_path.clone(), source })?;
        let header = Header::decode(&bytes).ok_or_else(|| StoreError::NotALog { path: log_path.clone() })?;
        if header.owner != owner {
            return Err(StoreError::OtherShoal { path: log_path });
        }
        let scan = log::scan(&bytes, &header.salt).map_err(|damage| StoreError::Damaged {
            path: log_path.clone(),
            at: damage.at,
            next: damage.next,
        })?;
        read_epoch(&epoch_path)?;
        let file = open_for_append(&log_path, scan.end, bytes.len())?;
        let store = Self { log_path, epoch_path, file, header, length: scan.end, snapshot: scan.end, failed: false };
        Ok((store, scan.records))
    }

    /// Makes an empty log. The epoch comes first: a log without an epoch is an error, an epoch without a log is not.
    fn create(folder: &Path, log_path: PathBuf, epoch_path: PathBuf, owner: [u8; 32]) -> Result<Self, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| StoreError::Write { path, source }
        };
        file::create_directory(folder).map_err(failed(folder))?;
        file::sync_directory(file::parent(folder)).map_err(failed(folder))?;
        if !epoch_path.exists() {
            file::replace(&epoch_path, b"0\n", file::SECRET_MODE).map_err(failed(&epoch_path))?;
        }
        let header = Header { salt: salt(), owner };
        let bytes = header.encode();
        let file = file::replace(&log_path, &bytes, file::SECRET_MODE).map_err(failed(&log_path))?;
        let length = bytes.len();
        Ok(Self { log_path, epoch_path, file, header, length, snapshot: length, failed: false })
    }

    /// Appends a batch and makes it durable with one fsync. After an error the caller must acknowledge nothing more
    /// and end: see [`StoreError::Write`].
    pub fn append<R: AsRef<[u8]>>(&mut self, records: &[R]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        self.check_usable(records, log::FRAME_BYTES_MAX)?;
        let mut frame = Vec::new();
        log::encode_frame(&mut frame, self.length, &self.header.salt, records);
        let written = self.file.write_all(&frame).and_then(|()| self.file.sync_data());
        self.note(written)?;
        self.length += frame.len();
        Ok(())
    }

    /// Tells whether the log has grown so much that the caller should [`Store::rewrite`] it.
    pub fn should_rewrite(&self) -> bool {
        self.length > REWRITE_BYTES_MIN.max(self.snapshot.saturating_mul(REWRITE_FACTOR))
    }

    /// Replaces all records by these, in one step: whenever the machine stops, either all old or all new are there.
    pub fn rewrite<R: AsRef<[u8]>>(&mut self, records: &[R]) -> Result<(), StoreError> {
        self.check_usable(records, usize::MAX)?;
        let header = Header { salt: salt(), owner: self.header.owner };
        let mut bytes = header.encode();
        for batch in frames_of(records) {
            log::encode_frame(&mut bytes, 0, &header.salt, batch);
        }
        let replaced = file::replace(&self.log_path, &bytes, file::SECRET_MODE);
        self.file = self.note(replaced)?;
        self.header = header;
        self.length = bytes.len();
        self.snapshot = bytes.len();
        Ok(())
    }

    /// Counts this start: returns a number that no earlier start of this node was given, durable before it returns.
    pub fn bump_epoch(&mut self) -> Result<u64, StoreError> {
        let epoch = read_epoch(&self.epoch_path)?
            .checked_add(1)
            .ok_or_else(|| StoreError::Epoch { path: self.epoch_path.clone() })?;
        file::replace(&self.epoch_path, format!("{epoch}\n").as_bytes(), file::SECRET_MODE)
            .map_err(|source| StoreError::Write { path: self.epoch_path.clone(), source })?;
        Ok(epoch)
    }

    /// Refuses a store that failed and batches that no frame can hold.
    fn check_usable<R: AsRef<[u8]>>(&self, records: &[R], batch_bytes_max: usize) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Failed { path: self.log_path.clone() });
        }
        let mut batch = 0usize;
        for record in records {
            let bytes = record.as_ref().len();
            if bytes > RECORD_BYTES_MAX {
                return Err(StoreError::TooLong { bytes, max: RECORD_BYTES_MAX });
            }
            batch = batch.saturating_add(log::record_bytes(record.as_ref()));
        }
        if batch > batch_bytes_max { Err(StoreError::TooLong { bytes: batch, max: batch_bytes_max }) } else { Ok(()) }
    }

    /// Remembers a failure for ever, because nobody knows what a disk holds after a failed fsync.
    fn note<T>(&mut self, written: io::Result<T>) -> Result<T, StoreError> {
        written.map_err(|source| {
            self.failed = true;
            StoreError::Write { path: self.log_path.clone(), source }
        })
    }
}

/// Cuts the records of a snapshot into runs that fit a frame.
fn frames_of<R: AsRef<[u8]>>(records: &[R]) -> impl Iterator<Item = &[R]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let full = rest.iter().position(|record| {
            bytes += log::record_bytes(record.as_ref());
            bytes > SNAPSHOT_FRAME_BYTES
        });
        let (batch, left) = rest.split_at(full.unwrap_or(rest.len()).max(1));
        rest = left;
        Some(batch)
    })
}

/// Opens the log behind its last whole batch, cutting off what a crash left there, and removes an unfinished snapshot.
fn open_for_append(path: &Path, end: usize, length: usize) -> Result<File, StoreError> {
    let failed = |source| StoreError::Write { path: path.to_path_buf(), source };
    let unfinished = path.with_extension("new");
    if unfinished.exists() {
        info!(path = %unfinished.display(), "removing a snapshot that was not finished");
        fs::remove_file(&unfinished).map_err(failed)?;
    }
    let file = OpenOptions::new().append(true).open(path).map_err(failed)?;
    if end < length {
        warn!(path = %path.display(), bytes = length - end, "the last write was torn by a crash; cutting it off, nothing acknowledged is lost");
        file.set_len(end as u64).and_then(|()| file.sync_all()).map_err(failed)?;
    }
    Ok(file)
}

/// Reads the number of the last start.
fn read_epoch(path: &Path) -> Result<u64, StoreError> {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| StoreError::Epoch { path: path.to_path_buf() })
}

/// Returns a fresh salt.
fn salt() -> [u8; log::SALT_BYTES] {
    crate::identity::random()
}

#[cfg(test)]
mod tests;
