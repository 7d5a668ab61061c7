//! The root file system of a built image, as one layer.
//!
//! Input: files of this machine and their paths in the image. Output: a tar with sorted entries, no times, and owned
//! by root. It is written twice, once to learn its digest, so that nothing needs to be kept in memory or on disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use tar::{Builder, EntryType, Header};

use super::{BuildError, layout::Layer};
use crate::image::digest::HashingWriter;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

#[derive(Debug)]
enum Node {
    Directory(u32),
    Text(&'static str),
    /// A file of this machine.
    Copy(PathBuf),
}

/// The entries, by path without the leading slash.
#[derive(Debug)]
pub(super) struct Root {
    nodes: BTreeMap<PathBuf, Node>,
}

impl Root {
    pub(super) fn new(files: &BTreeMap<PathBuf, PathBuf>) -> Self {
        let mut nodes = BTreeMap::new();
        for (path, mode) in [("dev", 0o755), ("etc", 0o755), ("proc", 0o555), ("root", 0o700), ("sys", 0o555)] {
            nodes.insert(PathBuf::from(path), Node::Directory(mode));
        }
        nodes.insert("tmp".into(), Node::Directory(0o1777));
        nodes.insert("etc/passwd".into(), Node::Text(PASSWD));
        nodes.insert("etc/group".into(), Node::Text(GROUP));
        for (image, host) in files {
            let path = image.strip_prefix("/").unwrap_or(image);
            let parents: BTreeSet<&Path> = path.ancestors().skip(1).filter(|path| *path != Path::new("")).collect();
            for parent in parents {
                nodes.entry(parent.to_owned()).or_insert(Node::Directory(0o755));
            }
            nodes.insert(path.to_owned(), Node::Copy(host.clone()));
        }
        Self { nodes }
    }

    /// Returns the digest and length that [`Root::write`] will produce.
    pub(super) fn describe(&self) -> Result<Layer, BuildError> {
        let mut sink = HashingWriter::new(io::sink());
        self.write(&mut sink)?;
        let hasher = sink.into_hasher();
        Ok(Layer { bytes: hasher.bytes(), digest: hasher.finish() })
    }

    /// Writes the layer's tar.
    pub(super) fn write(&self, out: &mut impl Write) -> Result<(), BuildError> {
        let mut builder = Builder::new(out);
        for (path, node) in &self.nodes {
            let mut header = Header::new_gnu();
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            match node {
                Node::Directory(mode) => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_size(0);
                    builder.append_data(&mut header, path, io::empty()).map_err(BuildError::Write)?;
                }
                Node::Text(text) => {
                    header.set_mode(0o644);
                    header.set_size(text.len() as u64);
                    builder.append_data(&mut header, path, text.as_bytes()).map_err(BuildError::Write)?;
                }
                Node::Copy(host) => append_copy(&mut builder, header, path, host)?,
            }
        }
        builder.into_inner().map_err(BuildError::Write)?;
        Ok(())
    }
}

fn append_copy(
    builder: &mut Builder<impl Write>,
    mut header: Header,
    path: &Path,
    host: &Path,
) -> Result<(), BuildError> {
    let unreadable = |source| BuildError::Read { path: host.to_owned(), source };
    let file = File::open(host).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    header.set_mode(0o755);
    header.set_size(bytes);
    let mut body = Exactly { file, left: bytes, error: None, short: false };
    let appended = builder.append_data(&mut header, path, &mut body);
    match (body.error, body.short, appended) {
        (Some(source), ..) => Err(unreadable(source)),
        (None, true, _) => Err(BuildError::Changed(host.to_owned())),
        (None, false, Ok(())) => Ok(()),
        (None, false, Err(source)) => Err(BuildError::Write(source)),
    }
}

/// Reads as many bytes as the header says, and remembers whose fault a failure is.
struct Exactly {
    file: File,
    left: u64,
    error: Option<io::Error>,
    short: bool,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = self.left.min(buffer.len() as u64) as usize;
        if want == 0 {
            return Ok(0);
        }
        match self.file.read(&mut buffer[..want]) {
            Ok(0) => {
                self.short = true;
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(count) => {
                self.left -= count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.error = Some(error);
                Err(kind.into())
            }
        }
    }
}
