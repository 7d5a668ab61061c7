//! What commands read: files, or standard input where the path is `-`, never more than a bound.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::Context;

/// Reads a file, or standard input where the path is `-`.
///
/// # Errors
/// It cannot be read, or has more than `bytes_max` bytes. No error has any of the bytes.
pub(super) fn read(path: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let read = || match path == Path::new("-") {
        true => limited(io::stdin().lock(), bytes_max),
        false => limited(File::open(path)?, bytes_max),
    };
    let bytes = read().with_context(|| format!("cannot read {}", path.display()))?;
    bytes.with_context(|| format!("{} has more than {bytes_max} bytes, which is all that fits", path.display()))
}

/// Reads everything, unless it is more than so many bytes.
pub(super) fn limited(file: impl Read, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= bytes_max).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        std::fs::write(&path, "hunter2").unwrap();
        assert_eq!(read(&path, 7).unwrap(), b"hunter2");
        let error = format!("{:#}", read(&path, 6).unwrap_err());
        assert!(error.contains("more than 6 bytes") && !error.contains("hunter"), "{error}");
        assert!(limited(io::repeat(7), 1 << 10).unwrap().is_none());
        assert!(format!("{:#}", read(&folder.path().join("gone"), 6).unwrap_err()).contains("cannot read"));
    }
}
