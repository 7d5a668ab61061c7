//! Files: the secrets and configs of a task, opened and put where its container gets them from.
//!
//! They are written to a tmpfs of their own that is mounted for as long as the container is being made. The container has
//! bound them by then, and what it has bound is all that is left of the tmpfs: nothing is on a disk, nothing is found on the
//! host, and nothing stays when the container ends.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use shoal_cluster::intent::service::file::FileMount;
use shoal_cluster::{TaskOrder, Views};
use shoal_runtime::container::{Mount, MountSource};

use super::Host;

/// How long a task waits for the bytes of its secrets and configs: gossip takes less than a second, a node that was away for
/// long some seconds.
const ARRIVE_MAX: Duration = Duration::from_secs(30);
/// Bytes of a page, which every file takes at least one of.
const PAGE_BYTES: usize = 4096;

/// A tmpfs with the files of one task. It is unmounted when this is dropped.
pub(super) struct Files {
    directory: PathBuf,
}

impl Files {
    /// Returns where a task's files are while its container is being made.
    pub(super) fn directory(host: &Host, order: &TaskOrder) -> PathBuf {
        host.files.join(order.id.to_string())
    }

    /// Waits for the bytes of a task's secrets and configs, and writes them.
    pub(super) async fn make(host: &Host, order: &TaskOrder) -> Result<Option<Self>, String> {
        let mounts = order.spec.container.files.clone();
        if mounts.is_empty() {
            return Ok(None);
        }
        let mut views = host.views.clone();
        let here = |views: &Views| mounts.iter().all(|file| views.sealed.has(&file.id));
        // One that has not come is named below.
        let _ = tokio::time::timeout(ARRIVE_MAX, views.wait_for(|views| here(views))).await;
        let sealed = views.borrow().sealed.clone();
        let mut opened = Vec::new();
        for file in mounts {
            let (what, name) = (file.kind.word(), &file.name);
            let bytes = sealed
                .get(&file.id)
                .ok_or_else(|| format!("{what} {name} is not there: it was removed, or has not arrived yet"))?;
            let bytes = host.data_key.open(&file.id, &bytes);
            let bytes = bytes.ok_or_else(|| format!("{what} {name} is damaged: remove it and create it again"))?;
            opened.push((file, bytes));
        }
        let directory = Self::directory(host, order);
        let written = tokio::task::spawn_blocking(move || Self::write(directory, &opened)).await;
        let files = written.map_err(|error| error.to_string())?;
        files.map(Some).map_err(|error| format!("cannot write the secrets and configs of the task: {error}"))
    }

    fn write(directory: PathBuf, files: &[(FileMount, Vec<u8>)]) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        let bytes: usize = files.iter().map(|(_, bytes)| bytes.len() + 2 * PAGE_BYTES).sum();
        let options = format!("size={bytes},mode=0700");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("shoal"), &directory, Some("tmpfs"), flags, Some(options.as_str()))?;
        let made = Self { directory };
        for (number, (file, bytes)) in files.iter().enumerate() {
            write_file(&made.directory.join(number.to_string()), file, bytes)?;
        }
        Ok(made)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        unmount(&self.directory);
    }
}

/// Returns how a task's files are mounted from its directory.
pub(super) fn mounts<'a>(files: &'a [FileMount], directory: &'a Path) -> impl Iterator<Item = Mount> + 'a {
    files.iter().enumerate().map(|(number, file)| Mount {
        target: file.path(),
        readonly: true,
        source: MountSource::Bind(directory.join(number.to_string())),
    })
}

/// Removes what a run left that was killed while it made containers.
pub(super) fn clean(files: &Path) {
    for entry in fs::read_dir(files).into_iter().flatten().flatten() {
        unmount(&entry.path());
    }
}

fn unmount(directory: &Path) {
    if let Err(error) = umount2(directory, MntFlags::MNT_DETACH) {
        tracing::debug!(directory = %directory.display(), %error, "nothing to unmount");
    }
    if let Err(error) = fs::remove_dir(directory) {
        tracing::debug!(directory = %directory.display(), %error, "cannot remove a directory");
    }
}

fn write_file(path: &Path, file: &FileMount, bytes: &[u8]) -> io::Result<()> {
    let mut written: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    written.write_all(bytes)?;
    fchown(&written, Some(file.uid), Some(file.gid))?;
    written.set_permissions(Permissions::from_mode(file.mode))
}
