//! Files that are either the old ones or the new ones, whenever the machine stops.
//!
//! Input: a path and its bytes. Output: the bytes durable under that name, or an error and the old file untouched.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Mode of files that hold a secret: only the owner may read them.
pub const SECRET_MODE: u32 = 0o600;
/// Mode of files that anybody may read.
pub const PUBLIC_MODE: u32 = 0o644;
/// Mode of every directory we make: only the owner may enter.
pub const DIRECTORY_MODE: u32 = 0o700;

/// Writes `bytes` to a new file at `path` and makes them durable. The name itself is durable only after
/// [`sync_directory`] of its parent. A file that is there already is replaced.
pub fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(file)
}

/// Replaces the file at `path` in one step: written beside it, made durable, renamed over it, and the rename made durable.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<File> {
    let new = path.with_extension("new");
    let file = write_durably(&new, bytes, mode)?;
    fs::rename(&new, path)?;
    sync_directory(parent(path))?;
    Ok(file)
}

/// Makes the names in a directory durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Creates a directory and its parents, closed to everybody but the owner. One that exists is left as it is.
pub fn create_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Returns the directory that holds `path`.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
