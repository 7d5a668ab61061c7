//! The tree: makes files below one directory, and nowhere else.
//!
//! Input: paths and entries of a layer. Output: files, links, devices and overlayfs whiteouts. Every parent directory
//! is opened by `openat2` confined to the root, and every last component is used with calls that do not follow links,
//! so a link made by one entry cannot lead the next one out. Nobody else writes to the tree meanwhile.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, XattrFlags, chmodat, chownat, fsetxattr,
        futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, readlinkat, statat, symlinkat, unlinkat,
        utimensat,
    },
    io::Errno,
};

use super::{LayerError, metadata, path::LayerPath};
use crate::image::{
    limits::Limits,
    tar_stream::{Entry, Kind, shown},
};

const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// Directories without an entry, here and in the layers below, get this mode and belong to root.
const DIRECTORY_MODE: u32 = 0o755;
const FIND: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const READ_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const UNDER_ROOT: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
/// A rename anywhere on the machine can make a confined lookup give up.
const LOOKUPS_MAX: usize = 1000;

/// What is to be done with a directory when the layer is complete: files made in it change its time.
enum Directory {
    /// Has an entry with this time.
    Described { mtime_s: i64, mtime_ns: u32 },
    /// Has no entry; it was needed as a parent.
    Borrowed,
}

/// A directory tree that is being filled.
pub(super) struct Tree {
    root: OwnedFd,
    root_path: PathBuf,
    directories: BTreeMap<Vec<u8>, Directory>,
    directory_bytes: u64,
    directory_bytes_max: u64,
    depth_max: usize,
}

impl Tree {
    pub(super) fn open(root: &Path, limits: &Limits) -> Result<Self, LayerError> {
        let at_root = |source| LayerError::Entry { path: root.display().to_string(), source };
        let root_path = fs::canonicalize(root).map_err(at_root)?;
        let fd = openat(CWD, &root_path, READ_DIRECTORY, Mode::empty()).map_err(|errno| at_root(errno.into()))?;
        Ok(Self {
            root: fd,
            root_path,
            directories: BTreeMap::new(),
            directory_bytes: 0,
            directory_bytes_max: limits.layer_directory_bytes_max,
            depth_max: limits.layer_depth_max,
        })
    }

    pub(super) const fn depth_max(&self) -> usize {
        self.depth_max
    }

    /// Makes a directory, or describes one that is there already.
    pub(super) fn directory(&mut self, path: &LayerPath, entry: &Entry) -> Result<(), LayerError> {
        let directory = match path.split() {
            None => self.root.try_clone().map_err(|error| path.error(error))?,
            Some((parent, name)) => {
                let parent = self.parent(&parent)?;
                make_directory(&parent, name).map_err(|errno| path.error(errno))?
            }
        };
        metadata::apply(&directory, entry).map_err(|error| path.error(error))?;
        self.remember(path, Directory::Described { mtime_s: entry.mtime_s, mtime_ns: entry.mtime_ns })
    }

    /// Makes an empty file, in place of whatever is there.
    pub(super) fn file(&mut self, path: &LayerPath) -> Result<File, LayerError> {
        let (parent, name) = self.vacant(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&parent, name, flags, metadata::mode(0o600)).map_err(|errno| path.error(errno))?;
        Ok(File::from(file))
    }

    /// Gives a file, once written, its owner, mode, attributes and time.
    pub(super) fn finish_file(&self, file: &File, path: &LayerPath, entry: &Entry) -> Result<(), LayerError> {
        metadata::apply(file, entry).map_err(|error| path.error(error))?;
        futimens(file, &metadata::times(entry.mtime_s, entry.mtime_ns)).map_err(|errno| path.error(errno))
    }

    /// Makes a symbolic link. Its target may be anything: it is resolved inside the container, or not at all.
    pub(super) fn symlink(&mut self, path: &LayerPath, entry: &Entry) -> Result<(), LayerError> {
        let (parent, name) = self.vacant(path)?;
        symlinkat(OsStr::from_bytes(&entry.link), &parent, name).map_err(|errno| path.error(errno))?;
        finish_node(&parent, name, entry).map_err(|errno| path.error(errno))
    }

    /// Makes one more name for a file of this layer.
    pub(super) fn hard_link(&mut self, path: &LayerPath, target: &LayerPath) -> Result<(), LayerError> {
        let Some((target_parent, target_name)) = target.split() else {
            return Err(path.error(Errno::PERM));
        };
        let target_parent = self.find(&target_parent)?.ok_or_else(|| path.error(Errno::NOENT))?;
        // A link to itself is there already; making room for it would remove it.
        if path == target {
            return statat(&target_parent, target_name, AtFlags::SYMLINK_NOFOLLOW)
                .map(drop)
                .map_err(|errno| path.error(errno));
        }
        let (parent, name) = self.vacant(path)?;
        linkat(&target_parent, target_name, &parent, name, AtFlags::empty()).map_err(|errno| path.error(errno))
    }

    /// Makes a device node or a fifo.
    pub(super) fn node(&mut self, path: &LayerPath, entry: &Entry) -> Result<(), LayerError> {
        let file_type = match entry.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            Kind::File | Kind::Directory | Kind::Symlink | Kind::HardLink => return Err(path.error(Errno::INVAL)),
        };
        let (parent, name) = self.vacant(path)?;
        let device = makedev(entry.device.0, entry.device.1);
        let made = mknodat(&parent, name, file_type, metadata::mode(entry.mode), device);
        made.and_then(|()| finish_node(&parent, name, entry))
            // The node is ours and no link; mknodat alone would leave the mode to the umask.
            .and_then(|()| chmodat(&parent, name, metadata::mode(entry.mode), AtFlags::empty()))
            .map_err(|errno| path.error(errno))
    }

    /// Hides what the layers below have at `path`. What this layer has there itself stays: markers speak of the layers
    /// below only, wherever they stand in the archive.
    pub(super) fn whiteout(&mut self, path: &LayerPath) -> Result<(), LayerError> {
        let Some((parent, name)) = path.split() else { return Ok(()) };
        let parent = self.parent(&parent)?;
        let hidden = match stat(&parent, name).map_err(|errno| path.error(errno))? {
            None => mknodat(&parent, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)),
            Some(stat) if is_directory(&stat) => {
                openat(&parent, name, READ_DIRECTORY, Mode::empty()).and_then(|directory| set_opaque(&directory))
            }
            Some(_) => Ok(()),
        };
        hidden.map_err(|errno| path.error(errno))
    }

    /// Hides what the layers below have inside the directory `path`.
    pub(super) fn opaque(&mut self, path: &LayerPath) -> Result<(), LayerError> {
        let found = self.parent(path)?;
        let directory = openat(&found, ".", READ_DIRECTORY, Mode::empty());
        directory.and_then(|directory| set_opaque(&directory)).map_err(|errno| path.error(errno))
    }

    /// Gives all directories their times, and those without an entry the metadata that the layers below have for
    /// them. Returns how many those are.
    pub(super) fn finish(mut self, lowers: &[PathBuf]) -> Result<usize, LayerError> {
        let mut borrowed = 0;
        let directories = std::mem::take(&mut self.directories);
        if !directories.contains_key(&b""[..]) {
            self.finish_root()?;
        }
        for (bytes, state) in directories {
            let path = LayerPath::parse(&bytes, self.depth_max)?;
            // It may have been replaced by something else since.
            let Some(found) = self.find(&path)? else { continue };
            let directory = openat(&found, ".", READ_DIRECTORY, Mode::empty()).map_err(|errno| path.error(errno))?;
            match state {
                Directory::Described { mtime_s, mtime_ns } => {
                    futimens(&directory, &metadata::times(mtime_s, mtime_ns)).map_err(|errno| path.error(errno))?;
                }
                Directory::Borrowed => {
                    borrowed += 1;
                    if let Some(lower) = find_lower(lowers, &path) {
                        metadata::copy(lower, &directory).map_err(|error| path.error(error))?;
                    } else {
                        futimens(&directory, &metadata::times(0, 0)).map_err(|errno| path.error(errno))?;
                    }
                }
            }
        }
        Ok(borrowed)
    }

    /// Most layers have no entry for the root, so it has a fixed mode rather than a borrowed one.
    fn finish_root(&self) -> Result<(), LayerError> {
        rustix::fs::fchmod(&self.root, metadata::mode(DIRECTORY_MODE))
            .and_then(|()| futimens(&self.root, &metadata::times(0, 0)))
            .map_err(|errno| LayerError::Entry { path: "/".into(), source: errno.into() })
    }

    fn remember(&mut self, path: &LayerPath, directory: Directory) -> Result<(), LayerError> {
        if self.directories.insert(path.as_bytes().to_vec(), directory).is_none() {
            self.directory_bytes += path.as_bytes().len() as u64;
        }
        if self.directory_bytes > self.directory_bytes_max {
            return Err(LayerError::Directories { max: self.directory_bytes_max });
        }
        Ok(())
    }

    /// Opens the directory that `path` is in and removes what is at `path`.
    fn vacant<'a>(&mut self, path: &'a LayerPath) -> Result<(OwnedFd, &'a OsStr), LayerError> {
        let Some((parent, name)) = path.split() else { return Err(path.error(Errno::ISDIR)) };
        let parent = self.parent(&parent)?;
        match stat(&parent, name).map_err(|errno| path.error(errno))? {
            None => {}
            Some(stat) if is_directory(&stat) => {
                // The standard library removes trees without following links; the descriptor pins the parent.
                let tree = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
                fs::remove_dir_all(tree).map_err(|error| path.error(error))?;
            }
            Some(_) => unlinkat(&parent, name, AtFlags::empty()).map_err(|errno| path.error(errno))?,
        }
        Ok((parent, name))
    }

    /// Opens a directory, and makes it and those above it if they are not there.
    fn parent(&mut self, path: &LayerPath) -> Result<OwnedFd, LayerError> {
        match self.find(path) {
            Ok(Some(directory)) => return Ok(directory),
            Ok(None) => {}
            Err(error) => return Err(error),
        }
        let mut directory = self.root.try_clone().map_err(|error| path.error(error))?;
        for prefix in path.prefixes() {
            directory = match self.find(&prefix)? {
                Some(found) => found,
                None => {
                    let Some((_, name)) = prefix.split() else { continue };
                    let made = make_missing(&directory, name).map_err(|errno| prefix.error(errno))?;
                    self.remember(&prefix, Directory::Borrowed)?;
                    made
                }
            };
        }
        Ok(directory)
    }

    /// Opens a directory below the root; links are followed but cannot leave it. `None` if it is not there or is
    /// hidden by a whiteout of this layer.
    fn find(&self, path: &LayerPath) -> Result<Option<OwnedFd>, LayerError> {
        let found = match confined(&self.root, path.as_path(), UNDER_ROOT) {
            Err(Errno::LOOP) => confined(&self.root, path.as_path(), IN_ROOT).map(|found| (found, true)),
            found => found.map(|found| (found, false)),
        };
        match found {
            Ok((found, false)) => Ok(Some(found)),
            Ok((found, true)) => self.check_depth(&found, path).map(|()| Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(Errno::NOSYS) => Err(LayerError::Kernel),
            Err(Errno::XDEV) => Err(LayerError::Escape { path: shown(path.as_bytes()) }),
            Err(errno) => Err(path.error(errno)),
        }
    }

    /// Links could be chained to nest directories without end, which nothing could remove again.
    fn check_depth(&self, directory: &OwnedFd, path: &LayerPath) -> Result<(), LayerError> {
        let too_deep = || LayerError::Depth { path: shown(path.as_bytes()), max: self.depth_max };
        let link = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
        let real = readlinkat(CWD, link, Vec::new()).map_err(|_| too_deep())?;
        let real = Path::new(OsStr::from_bytes(real.as_bytes()));
        match real.strip_prefix(&self.root_path) {
            Ok(below) if below.components().count() < self.depth_max => Ok(()),
            Ok(_) | Err(_) => Err(too_deep()),
        }
    }
}

fn confined(root: &OwnedFd, path: &Path, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let mut result = Err(Errno::AGAIN);
    for _ in 0..LOOKUPS_MAX {
        result = openat2(root, path, FIND, Mode::empty(), resolve);
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}

fn stat(parent: &OwnedFd, name: &OsStr) -> Result<Option<Stat>, Errno> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(0, 0)
}

fn set_opaque(directory: &OwnedFd) -> Result<(), Errno> {
    fsetxattr(directory, OPAQUE_XATTR, b"y", XattrFlags::empty())
}

/// Makes a directory for an entry: one that is there stays, anything else gives way. In place of a whiteout it must
/// hide what is below, as the whiteout did.
fn make_directory(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    match stat(parent, name)? {
        Some(stat) if is_directory(&stat) => return openat(parent, name, READ_DIRECTORY, Mode::empty()),
        Some(stat) if is_whiteout(&stat) => return make_missing(parent, name),
        Some(_) => unlinkat(parent, name, AtFlags::empty())?,
        None => {}
    }
    make_missing(parent, name)
}

/// Makes a directory where there is nothing, or only a whiteout.
fn make_missing(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let whiteout = stat(parent, name)?.as_ref().is_some_and(is_whiteout);
    if whiteout {
        unlinkat(parent, name, AtFlags::empty())?;
    }
    mkdirat(parent, name, metadata::mode(0o700))?;
    let directory = openat(parent, name, READ_DIRECTORY, Mode::empty())?;
    // Not left to the umask.
    rustix::fs::fchmod(&directory, metadata::mode(DIRECTORY_MODE))?;
    if whiteout {
        set_opaque(&directory)?;
    }
    Ok(directory)
}

/// Owner and time of something that cannot be opened.
fn finish_node(parent: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<(), Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    chownat(parent, name, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)), flags)?;
    utimensat(parent, name, &metadata::times(entry.mtime_s, entry.mtime_ns), flags)
}

/// The directory that overlayfs would merge with the one at `path`: the highest below, unless something hides it.
fn find_lower(lowers: &[PathBuf], path: &LayerPath) -> Option<OwnedFd> {
    for lower in lowers.iter().rev() {
        let root = openat(CWD, lower, FIND, Mode::empty()).ok()?;
        match confined(&root, path.as_path(), UNDER_ROOT) {
            Ok(found) => return openat(&found, ".", READ_DIRECTORY, Mode::empty()).ok(),
            Err(Errno::NOENT) => {}
            // A file, link or whiteout is in the way, so nothing further below shows through.
            Err(_) => return None,
        }
    }
    None
}
