//! Paths inside a layer: what an entry's name means, before any file system is asked.
//!
//! Input: bytes from a tar. Output: a [`LayerPath`], whose components are real names (no `..`), and the AUFS markers
//! by which image layers delete things (OCI image specification, layer, "whiteouts").

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path};

use super::LayerError;
use crate::image::tar_stream::shown;

const MARKER_PREFIX: &[u8] = b".wh.";
const INTERNAL_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A path below the layer's root, normalised: components joined by single slashes, empty for the root itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LayerPath(Vec<u8>);

/// What an entry with a reserved name asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// Whatever the layers below have at this path is gone.
    Whiteout(LayerPath),
    /// Whatever the layers below have inside this directory is gone.
    Opaque(LayerPath),
    /// A leftover of the AUFS driver without meaning.
    Internal,
}

impl LayerPath {
    /// Takes absolute paths as relative to the layer's root, as Docker does, and refuses `..`.
    pub(super) fn parse(bytes: &[u8], depth_max: usize) -> Result<Self, LayerError> {
        let mut path = Vec::with_capacity(bytes.len());
        let mut depth = 0;
        for component in bytes.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(LayerError::Escape { path: shown(bytes) }),
                name => {
                    depth += 1;
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name);
                }
            }
        }
        if depth > depth_max {
            return Err(LayerError::Depth { path: shown(bytes), max: depth_max });
        }
        Ok(Self(path))
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For system calls relative to the root, where the root itself is `.`.
    pub(super) fn as_path(&self) -> &Path {
        if self.is_root() { Path::new(".") } else { Path::new(OsStr::from_bytes(&self.0)) }
    }

    /// The directory that it is in, and its name there. The root has neither.
    pub(super) fn split(&self) -> Option<(Self, &OsStr)> {
        if self.is_root() {
            return None;
        }
        let (parent, name) = match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[][..], &self.0[..]),
        };
        Some((Self(parent.to_vec()), OsStr::from_bytes(name)))
    }

    /// The path and all directories above it except the root, the uppermost first.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = Self> + '_ {
        let slashes = self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let ends = slashes.chain((!self.is_root()).then_some(self.0.len()));
        ends.map(|end| Self(self.0[..end].to_vec()))
    }

    /// The AUFS marker that the name stands for, if any.
    pub(super) fn marker(&self) -> Result<Option<Marker>, LayerError> {
        let Some((parent, name)) = self.split() else { return Ok(None) };
        let name = name.as_bytes();
        if name == OPAQUE {
            return Ok(Some(Marker::Opaque(parent)));
        }
        if name.starts_with(INTERNAL_PREFIX) {
            return Ok(Some(Marker::Internal));
        }
        match name.strip_prefix(MARKER_PREFIX) {
            None => Ok(None),
            // These would name the directory itself, or the one above.
            Some(b"" | b"." | b"..") => Err(LayerError::Escape { path: shown(&self.0) }),
            Some(hidden) => {
                let mut path = parent.0;
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(hidden);
                Ok(Some(Marker::Whiteout(Self(path))))
            }
        }
    }

    /// An error about this path.
    pub(super) fn error(&self, source: impl Into<io::Error>) -> LayerError {
        LayerError::Entry { path: shown(&self.0), source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> LayerPath {
        LayerPath::parse(text.as_bytes(), 8).unwrap()
    }

    #[test]
    fn paths_are_normalised_or_refused() {
        assert_eq!(parse("./a//b/./c/").as_bytes(), b"a/b/c");
        assert_eq!(parse("/etc/passwd").as_bytes(), b"etc/passwd");
        assert!(parse("./").is_root() && parse("").is_root() && parse("/").is_root());
        for text in ["..", "../a", "a/../b", "/..", "a/.."] {
            assert!(matches!(LayerPath::parse(text.as_bytes(), 8), Err(LayerError::Escape { .. })), "{text}");
        }
        assert!(matches!(LayerPath::parse(b"1/2/3/4/5/6/7/8/9", 8), Err(LayerError::Depth { .. })));
        assert_eq!(parse("a/b/c").prefixes().collect::<Vec<_>>(), [parse("a"), parse("a/b"), parse("a/b/c")]);
        assert_eq!(parse("").prefixes().count(), 0);
    }

    #[test]
    fn markers_name_what_they_hide_and_never_a_parent() {
        assert_eq!(parse("a/.wh.b").marker().unwrap(), Some(Marker::Whiteout(parse("a/b"))));
        assert_eq!(parse(".wh.b").marker().unwrap(), Some(Marker::Whiteout(parse("b"))));
        assert_eq!(parse("a/.wh..wh..opq").marker().unwrap(), Some(Marker::Opaque(parse("a"))));
        assert_eq!(parse(".wh..wh.plnk/x").marker().unwrap(), None);
        assert_eq!(parse(".wh..wh.aufs").marker().unwrap(), Some(Marker::Internal));
        assert_eq!(parse("a/b").marker().unwrap(), None);
        for text in [".wh.", ".wh..", "a/.wh...", "a/.wh."] {
            assert!(matches!(parse(text).marker(), Err(LayerError::Escape { .. })), "{text}");
        }
    }
}
