//! Layers: a tar of changes becomes a directory that overlayfs can stack.
//!
//! Input: a layer blob, plain or compressed, from a stranger. Output: its files below an empty directory, with whiteouts
//! in overlayfs's form. Nothing outside that directory is touched whatever the entries say, and the uncompressed bytes
//! must have the expected diff id. Needs root, for owners, devices and `trusted` attributes.

mod metadata;
mod path;
mod tree;

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    ahead::ReadAhead,
    compression::{CompressionError, Decoder},
    digest::{Digest, HashingReader},
    limits::Limits,
    tar_stream::{Entry, Kind, TarError, TarLimits, TarStream},
};
use path::{LayerPath, Marker};
use tree::Tree;

/// Why a layer was refused. The directory holds a part of it and must be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive is broken or exceeds a limit.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The layer's compression is not supported.
    #[error("the layer cannot be read")]
    Compression(#[from] CompressionError),
    /// A path or link target leads out of the layer.
    #[error("entry {path:?} points outside the layer")]
    Escape {
        /// The path, as written.
        path: String,
    },
    /// A path is nested deeper than [`Limits::layer_depth_max`].
    #[error("entry {path:?} is nested deeper than {max} directories")]
    Depth {
        /// The path, as written.
        path: String,
        /// The bound.
        max: usize,
    },
    /// The paths of all directories together exceed [`Limits::layer_directory_bytes_max`].
    #[error("the layer's directory names take more than {max} bytes")]
    Directories {
        /// The bound.
        max: u64,
    },
    /// The system refused an entry.
    #[error("cannot create {path:?}")]
    Entry {
        /// The path, as written.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel has no `openat2`, without which paths cannot be confined.
    #[error("this kernel is too old to unpack images safely, Linux 5.6 or newer is needed")]
    Kernel,
    /// The bytes are not those that the image's configuration names.
    #[error("wrong diff id: the layer has {found}, expected {expected}")]
    DiffId {
        /// What the configuration says.
        expected: Digest,
        /// What the bytes have.
        found: Digest,
    },
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Length of the uncompressed tar in bytes.
    pub bytes: u64,
    /// Directories that the layer's entries are in but that have no entry themselves. They were made like those of the
    /// same path in the layers below.
    pub borrowed_directories: usize,
}

/// A layer whose files are all there, but for what its directories take from the layers below.
pub(super) struct Extracted {
    tree: Tree,
    bytes: u64,
}

/// Unpacks `blob` into the empty directory `root`.
pub(super) fn extract(
    blob: impl Read + Send + 'static,
    root: &Path,
    expected: Digest,
    limits: &Limits,
) -> Result<Extracted, LayerError> {
    let tar_limits = TarLimits {
        entries_max: limits.layer_entries_max,
        bytes_max: limits.layer_bytes_max,
        path_bytes_max: limits.layer_path_bytes_max,
        extension_bytes_max: limits.extension_bytes_max,
    };
    let plain = ReadAhead::new(Decoder::new(blob)?).map_err(TarError::Read)?;
    let mut stream = TarStream::new(HashingReader::new(plain), tar_limits);
    let mut tree = Tree::open(root, limits)?;
    while let Some(entry) = stream.next_entry()? {
        apply(&mut tree, &mut stream, &entry)?;
    }
    let (bytes, found) = drain(stream.into_inner(), limits.layer_bytes_max)?;
    if found != expected {
        return Err(LayerError::DiffId { expected, found });
    }
    Ok(Extracted { tree, bytes })
}

impl Extracted {
    /// Completes the directories. `lowers` are the layers below, the lowest first.
    pub(super) fn finish(self, lowers: &[PathBuf]) -> Result<Unpacked, LayerError> {
        let borrowed_directories = self.tree.finish(lowers)?;
        Ok(Unpacked { bytes: self.bytes, borrowed_directories })
    }
}

fn apply<R: Read>(tree: &mut Tree, stream: &mut TarStream<R>, entry: &Entry) -> Result<(), LayerError> {
    let path = LayerPath::parse(&entry.path, tree.depth_max())?;
    match path.marker()? {
        Some(Marker::Whiteout(hidden)) => return tree.whiteout(&hidden),
        Some(Marker::Opaque(directory)) => return tree.opaque(&directory),
        Some(Marker::Internal) => return Ok(()),
        None => {}
    }
    match entry.kind {
        Kind::Directory => tree.directory(&path, entry),
        Kind::File => {
            let mut file = tree.file(&path)?;
            copy_body(stream, &mut file, &path)?;
            tree.finish_file(&file, &path, entry)
        }
        Kind::Symlink => tree.symlink(&path, entry),
        Kind::HardLink => {
            let target = LayerPath::parse(&entry.link, tree.depth_max())?;
            tree.hard_link(&path, &target)
        }
        Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => tree.node(&path, entry),
    }
}

fn copy_body<R: Read>(
    stream: &mut TarStream<R>,
    file: &mut impl io::Write,
    path: &LayerPath,
) -> Result<(), LayerError> {
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        match stream.body().read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => file.write_all(&buffer[..count]).map_err(|source| path.error(source))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(stream.body_error(error).into()),
        }
    }
}

/// Reads what follows the end of the tar, which counts for the diff id, and returns length and digest of it all.
fn drain<R: Read>(mut reader: HashingReader<R>, max: u64) -> Result<(u64, Digest), LayerError> {
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) if reader.read_bytes() > max => return Err(TarError::Size { max }.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TarError::Read(error).into()),
        }
    }
    let hasher = reader.into_hasher();
    Ok((hasher.bytes(), hasher.finish()))
}
