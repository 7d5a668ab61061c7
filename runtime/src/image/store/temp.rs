//! Temporary files and directories of a store: everything under `tmp/` is unfinished, and removed at the next open.
//!
//! Output: paths that nobody else uses, which disappear when their guard is dropped.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Hands out temporary paths below one directory, which one process has for itself.
#[derive(Debug)]
pub(in crate::image) struct Temp {
    root: PathBuf,
    next: AtomicU64,
}

/// A file that is removed unless it is [kept](TempFile::keep).
#[derive(Debug)]
pub(in crate::image) struct TempFile {
    path: PathBuf,
    kept: bool,
}

/// A directory that is removed with all it holds, unless it is [kept](TempDir::keep).
#[derive(Debug)]
pub(in crate::image) struct TempDir {
    path: PathBuf,
    kept: bool,
}

impl Temp {
    /// Empties `root`: what is in it is left from a process that ended in the middle.
    pub(in crate::image) fn open(root: PathBuf) -> io::Result<Self> {
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        DirBuilder::new().mode(0o700).create(&root)?;
        Ok(Self { root, next: AtomicU64::new(0) })
    }

    fn path(&self) -> PathBuf {
        self.root.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    pub(in crate::image) fn file(&self) -> io::Result<(TempFile, File)> {
        let path = self.path();
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok((TempFile { path, kept: false }, file))
    }

    pub(in crate::image) fn dir(&self) -> io::Result<TempDir> {
        let path = self.path();
        DirBuilder::new().mode(0o755).create(&path)?;
        Ok(TempDir { path, kept: false })
    }

    /// Removes a directory tree so that a crash in between leaves it under `tmp/`, not half there under its name.
    pub(in crate::image) fn discard(&self, path: &Path) -> io::Result<()> {
        let doomed = TempDir { path: self.path(), kept: false };
        fs::rename(path, &doomed.path)
    }
}

impl TempFile {
    pub(in crate::image) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the file to its final place on the same file system, replacing what is there.
    pub(in crate::image) fn keep(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is removed at the next open.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl TempDir {
    pub(in crate::image) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the directory to its final place on the same file system, where nothing may be yet.
    pub(in crate::image) fn keep(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
