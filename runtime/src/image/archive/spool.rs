//! The spool: an archive's files, hashed and put aside until it is known what they are.
//!
//! Input: a tar stream. Output: temporary files by path and by digest. Archives put their table of contents first,
//! last or in between, so nothing can be decided on the way.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
};

use super::LoadError;
use crate::image::{
    compression::Decoder,
    digest::{Digest, Hasher},
    limits::Limits,
    store::{
        blob::read_document,
        temp::{Temp, TempFile},
    },
    tar_stream::{Entry, Kind, TarLimits, TarStream},
};

const BLOB_FOLDER: &str = "blobs/";
/// Links to links; `docker save` makes none longer than one.
const LINKS_MAX: usize = 8;
/// What may follow the end of the tar and is read so that a sender can finish.
const TRAILER_BYTES_MAX: u64 = 1 << 20;

/// A file of the archive.
pub(super) struct Spooled {
    file: TempFile,
    path: String,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

/// All files and links of the archive.
pub(super) struct Spool {
    files: BTreeMap<Digest, Spooled>,
    paths: BTreeMap<String, Item>,
}

enum Item {
    File(Digest),
    /// Another path of the archive.
    Link(String),
}

impl Spooled {
    /// Reads the file into memory, if it is not too long for that.
    pub(super) fn document(&self, what: &'static str, max: u64) -> Result<Vec<u8>, LoadError> {
        let file = self.open()?;
        let document = read_document(what, file, self.bytes, max).map_err(LoadError::Io)?;
        document.map_err(|source| LoadError::Document { path: self.path.clone(), source })
    }

    pub(super) fn open(&self) -> Result<File, LoadError> {
        File::open(self.file.path()).map_err(LoadError::Io)
    }
}

impl Spool {
    pub(super) fn read(archive: impl Read, temp: &Temp, limits: &Limits) -> Result<Self, LoadError> {
        let tar_limits = TarLimits {
            entries_max: limits.archive_entries_max,
            bytes_max: limits.archive_bytes_max,
            path_bytes_max: limits.archive_path_bytes_max,
            extension_bytes_max: limits.extension_bytes_max,
        };
        let mut stream = TarStream::new(Decoder::new(archive)?, tar_limits);
        let mut spool = Self { files: BTreeMap::new(), paths: BTreeMap::new() };
        while let Some(entry) = stream.next_entry()? {
            let path = parse_path(&entry.path)?;
            match entry.kind {
                Kind::File => {
                    let spooled = spool_file(&mut stream, path, temp)?;
                    spool.add(spooled)?;
                }
                Kind::Directory => {}
                Kind::Symlink | Kind::HardLink => {
                    let target = link_target(&entry, &path)?;
                    spool.paths.insert(path, Item::Link(target));
                }
                Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => return Err(LoadError::Kind(entry.shown_path())),
            }
        }
        // Whatever goes wrong here is after the end and does not matter.
        let _ = io::copy(&mut stream.into_inner().take(TRAILER_BYTES_MAX), &mut io::sink());
        Ok(spool)
    }

    fn add(&mut self, spooled: Spooled) -> Result<(), LoadError> {
        if let Some(name) = spooled.path.strip_prefix(BLOB_FOLDER) {
            let text = name.replacen('/', ":", 1);
            let expected: Digest =
                text.parse().map_err(|source| LoadError::Name { path: spooled.path.clone(), source })?;
            if expected != spooled.digest {
                return Err(LoadError::Digest { path: spooled.path, expected, found: spooled.digest });
            }
        }
        self.paths.insert(spooled.path.clone(), Item::File(spooled.digest));
        self.files.entry(spooled.digest).or_insert(spooled);
        Ok(())
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        self.paths.contains_key(path)
    }

    pub(super) fn by_digest(&self, digest: &Digest) -> Option<&Spooled> {
        self.files.get(digest)
    }

    /// Finds a file by a path that a document of the archive gives.
    pub(super) fn by_path(&self, path: &str) -> Result<&Spooled, LoadError> {
        let missing = || LoadError::Missing(path.chars().take(200).collect());
        let mut at = parse_path(path.as_bytes())?;
        for _ in 0..LINKS_MAX {
            match self.paths.get(&at).ok_or_else(missing)? {
                Item::File(digest) => return self.files.get(digest).ok_or_else(missing),
                Item::Link(target) => at.clone_from(target),
            }
        }
        Err(missing())
    }

    /// Takes a file out, to keep it.
    pub(super) fn take(&mut self, digest: &Digest) -> Option<TempFile> {
        self.files.remove(digest).map(|spooled| spooled.file)
    }
}

fn spool_file<R: Read>(stream: &mut TarStream<R>, path: String, temp: &Temp) -> Result<Spooled, LoadError> {
    let (guard, mut file) = temp.file().map_err(LoadError::Io)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        match stream.body().read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                file.write_all(&buffer[..count]).map_err(LoadError::Io)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(stream.body_error(error).into()),
        }
    }
    let bytes = hasher.bytes();
    Ok(Spooled { file: guard, path, digest: hasher.finish(), bytes })
}

/// Normalises a path: no empty or `.` components, and it neither begins at the root nor goes up.
fn parse_path(bytes: &[u8]) -> Result<String, LoadError> {
    let refuse = || LoadError::Path(crate::image::tar_stream::shown(bytes));
    let text = std::str::from_utf8(bytes).map_err(|_| refuse())?;
    if text.starts_with('/') || text.split('/').any(|component| component == "..") {
        return Err(refuse());
    }
    Ok(text.split('/').filter(|component| !matches!(*component, "" | ".")).collect::<Vec<_>>().join("/"))
}

/// A hard link names a path of the archive, a symbolic one is relative to the folder that it is in. Old archives link
/// layers that they repeat as `../<other>/layer.tar`, so that much of going up is allowed, as long as it stays inside.
fn link_target(entry: &Entry, path: &str) -> Result<String, LoadError> {
    if entry.kind == Kind::HardLink {
        return parse_path(&entry.link);
    }
    let refuse = || LoadError::Path(crate::image::tar_stream::shown(&entry.link));
    let target = std::str::from_utf8(&entry.link).map_err(|_| refuse())?;
    if target.starts_with('/') {
        return Err(refuse());
    }
    let mut components: Vec<&str> = path.split('/').collect();
    components.pop();
    for component in target.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(components.pop().ok_or_else(refuse)?),
            name => components.push(name),
        }
    }
    Ok(components.join("/"))
}
