//! The socket: made in place of a stale one, never in place of a live one, and removed at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::limited::Limited;

/// Who may use the socket: its owner and its group, as with Docker's.
const MODE: u32 = 0o660;

/// The API's socket, bound. The file is removed when this is dropped.
#[derive(Debug)]
pub struct ApiSocket {
    listener: Option<UnixListener>,
    _file: Remove,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody listens there.
    #[error("socket {} is in use: another node runs here; stop it, or give this one another --socket", .0.display())]
    InUse(PathBuf),
    /// There is a file that is no socket.
    #[error("{} exists and is not a socket: remove it, or give another --socket", .0.display())]
    NotASocket(PathBuf),
    /// It cannot be made.
    #[error("cannot make the socket {}: give another --socket, or run as root", path.display())]
    Io {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Removes a file when dropped.
#[derive(Debug)]
struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        // Nothing depends on it: the next node replaces a stale socket.
        let _ = fs::remove_file(&self.0);
    }
}

impl ApiSocket {
    pub(super) async fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        remove_stale(path).await?;
        let listener = UnixListener::bind(path).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => SocketError::InUse(path.to_owned()),
            _ => failed(source),
        })?;
        let file = Remove(path.to_owned());
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed)?;
        Ok(Self { listener: Some(listener), _file: file })
    }

    /// Returns what accepts connections, together with the duty to remove the file.
    pub(super) fn listener(mut self) -> Limited {
        let listener = self.listener.take().expect("taken only here, by value");
        Limited::new(listener, self)
    }
}

/// Removes the socket that a dead node left behind.
async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}
