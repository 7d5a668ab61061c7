//! Blobs: files named by the digest of their bytes. What has the name has the bytes.
//!
//! Input: bytes from archives and peers. Output: verified files, opened for reading. A blob appears under its name by
//! one rename, after its digest was verified and its bytes were synced.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    thread,
};

use tokio::sync::watch;

use super::{
    growing::{Growing, Growth},
    temp::{Temp, TempFile},
};
use crate::image::{
    digest::{Digest, Hasher},
    document::DocumentError,
};

/// How many files are made durable at once, each by a thread.
const SYNCS_AT_ONCE: usize = 8;

/// Why a blob was not stored. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The bytes are not those that the digest names.
    #[error("wrong digest: the bytes have {found}, expected {expected}")]
    Digest {
        /// The digest that the blob should have.
        expected: Digest,
        /// The digest that its bytes have.
        found: Digest,
    },
    /// The store's disk failed.
    #[error("cannot store blob {digest}")]
    Io {
        /// The digest that the blob should have.
        digest: Digest,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The directory of blobs.
#[derive(Debug)]
pub(in crate::image) struct Blobs {
    root: PathBuf,
    /// Loading, unpacking and taking over read; pruning writes, so that it never takes what they are about to use.
    pub(super) activity: RwLock<()>,
    /// Blobs that are on their way here and may be read meanwhile.
    pub(super) growing: Growth,
}

impl Blobs {
    pub(super) fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self { root, activity: RwLock::new(()), growing: Growth::default() })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.hex())
    }

    pub(in crate::image) fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    pub(in crate::image) fn open_blob(&self, digest: &Digest) -> io::Result<Option<(File, u64)>> {
        match File::open(self.path(digest)) {
            Ok(file) => {
                let bytes = file.metadata()?.len();
                Ok(Some((file, bytes)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Moves files whose digests were verified to their names. None of them has its name before its bytes are synced.
    pub(in crate::image) fn adopt(&self, files: Vec<(TempFile, Digest)>) -> io::Result<()> {
        let files: Vec<_> = files.into_iter().filter(|(_, digest)| !self.contains(digest)).collect();
        if files.is_empty() {
            return Ok(());
        }
        for some in files.chunks(SYNCS_AT_ONCE) {
            sync_files(some)?;
        }
        for (file, digest) in files {
            file.keep(&self.path(&digest))?;
        }
        sync_dir(&self.root)
    }

    /// All blobs with their lengths, in the order of their digests. Files with other names are left out.
    pub(super) fn list(&self) -> io::Result<Vec<(Digest, u64)>> {
        let mut blobs = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if let Some(digest) = entry.file_name().to_str().and_then(|name| Digest::from_hex(name).ok()) {
                blobs.push((digest, entry.metadata()?.len()));
            }
        }
        blobs.sort_unstable();
        Ok(blobs)
    }

    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        fs::remove_file(self.path(digest))
    }
}

/// Makes files durable, all at once: a disk writes several in little more time than one.
fn sync_files(files: &[(TempFile, Digest)]) -> io::Result<()> {
    let sync = |(file, _): &(TempFile, Digest)| File::open(file.path())?.sync_all();
    let [first, others @ ..] = files else { return Ok(()) };
    thread::scope(|scope| {
        let threads: Vec<_> = others.iter().map(|file| scope.spawn(move || sync(file))).collect();
        let panicked = |_| Err(io::Error::other("a thread that syncs has panicked"));
        threads.into_iter().fold(sync(first), |all, thread| all.and(thread.join().unwrap_or_else(panicked)))
    })
}

/// Reads a whole document, of which not a byte more than `max` is taken into memory.
pub(in crate::image) fn read_document(
    what: &'static str,
    file: File,
    bytes: u64,
    max: u64,
) -> io::Result<Result<Vec<u8>, DocumentError>> {
    if bytes > max {
        return Ok(Err(DocumentError::TooLong { what, bytes, max }));
    }
    let mut document = Vec::new();
    file.take(max).read_to_end(&mut document)?;
    Ok(Ok(document))
}

/// Makes renames in a directory durable.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Takes the bytes of one blob from a peer and stores them if they are the right ones.
///
/// Writing more than was announced fails. Dropped before [`BlobWriter::commit`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: Arc<Blobs>,
    temp: TempFile,
    file: File,
    hasher: Hasher,
    expected: Digest,
    bytes_max: u64,
    /// Tells readers how far it is, once it is [shared](BlobWriter::share).
    written: Option<watch::Sender<u64>>,
}

impl BlobWriter {
    pub(super) fn new(blobs: Arc<Blobs>, temp: &Temp, expected: Digest, bytes_max: u64) -> Result<Self, BlobError> {
        let (temp, file) = temp.file().map_err(|source| BlobError::Io { digest: expected, source })?;
        Ok(Self { blobs, temp, file, hasher: Hasher::default(), expected, bytes_max, written: None })
    }

    /// Returns how many bytes were written.
    pub fn written_bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    /// Lets the blob be read while it comes, by [`super::ImageStore::open_growing`]; `bytes_max` must be its exact length.
    /// If another writer shares the same blob already, nothing happens.
    ///
    /// # Errors
    /// [`BlobError::Io`] if the file cannot be opened once more.
    pub fn share(&mut self) -> Result<(), BlobError> {
        let file = File::open(self.temp.path()).map_err(|source| BlobError::Io { digest: self.expected, source })?;
        let (sender, written) = watch::channel(self.written_bytes());
        if self.blobs.growing.add(self.expected, Growing { file: Arc::new(file), bytes: self.bytes_max, written }) {
            self.written = Some(sender);
        }
        Ok(())
    }

    /// Verifies the digest and makes the blob available under it, durably.
    ///
    /// # Errors
    /// [`BlobError::Digest`] if the bytes are not the expected ones, [`BlobError::Io`] if the disk fails.
    pub fn commit(self) -> Result<(), BlobError> {
        let found = self.hasher.finish();
        if found != self.expected {
            return Err(BlobError::Digest { expected: self.expected, found });
        }
        drop(self.file);
        let _activity = self.blobs.activity.read().unwrap_or_else(PoisonError::into_inner);
        self.blobs.adopt(vec![(self.temp, found)]).map_err(|source| BlobError::Io { digest: found, source })
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.hasher.bytes().saturating_add(buffer.len() as u64) > self.bytes_max {
            let message = format!("blob {} is longer than the {} bytes announced", self.expected, self.bytes_max);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let count = self.file.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        if let Some(written) = &self.written {
            written.send_replace(self.hasher.bytes());
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
