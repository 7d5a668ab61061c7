//! The TUN: the interface through which this host's packets for other nodes come to us as bytes, and back.
//!
//! Opened in the network namespace of the calling thread. The interface disappears with the last handle.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use tokio::io::unix::AsyncFd;

const DEVICE: &str = "/dev/net/tun";

/// Why the TUN could not be made. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// `/dev/net/tun` is not there, or the kernel has no driver behind it.
    #[error(
        "{DEVICE} is missing: load the tun module (modprobe tun) or create the device (mkdir -p /dev/net && mknod {DEVICE} c 10 200)"
    )]
    NoDevice,
    /// This process may not make network interfaces.
    #[error("not allowed to make the network interface {name}: run as root, or grant CAP_NET_ADMIN")]
    NotAllowed {
        /// The interface asked for.
        name: String,
    },
    /// Somebody has an interface of this name.
    #[error(
        "the network interface {name} is in use: another shoal node runs in this network namespace; stop it, or choose another interface name"
    )]
    Taken {
        /// The interface asked for.
        name: String,
    },
    /// The name is not one the kernel accepts.
    #[error("{name:?} is not a name for a network interface: use 1 to 15 letters, digits and dashes")]
    Name {
        /// The interface asked for.
        name: String,
    },
    /// Anything else, in the system's words.
    #[error("cannot make the network interface {name}")]
    Io {
        /// The interface asked for.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An open TUN that belongs to no runtime yet.
#[derive(Debug)]
pub(crate) struct TunFile(File);

/// An open TUN in a tokio runtime.
#[derive(Debug)]
pub(crate) struct Tun(AsyncFd<File>);

impl TunFile {
    /// Makes the interface `name`: layer 3, no packet information header.
    pub(crate) fn open(name: &str) -> Result<Self, TunError> {
        if !name_is_valid(name) {
            return Err(TunError::Name { name: name.to_owned() });
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(DEVICE)
            .map_err(|error| open_error(name, error))?;
        set_interface(&file, name).map_err(|error| attach_error(name, error))?;
        Ok(Self(file))
    }

    /// Hands the TUN to the runtime of the calling task.
    pub(crate) fn into_async(self) -> io::Result<Tun> {
        #[expect(unsafe_code, reason = "tokio leaves it to the caller that the descriptor does not change")]
        // SAFETY: a `File` returns the same descriptor each time, which stays open as long as the `AsyncFd` owns it.
        let file = unsafe { AsyncFd::register_with_interest(self.0, tokio::io::Interest::READABLE) }?;
        Ok(Tun(file))
    }
}

impl Tun {
    /// Waits until there is a packet to read.
    pub(crate) async fn readable(&self) -> io::Result<tokio::io::unix::AsyncFdReadyGuard<'_, File>> {
        self.0.readable().await
    }

    /// Reads one packet, or fails with `WouldBlock`.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.get_ref().read(buffer)
    }

    /// Gives one packet to the host. Never waits: what the kernel does not take at once is lost.
    pub(crate) fn write(&self, packet: &[u8]) -> io::Result<()> {
        self.0.get_ref().write(packet).map(|_| ())
    }
}

fn name_is_valid(name: &str) -> bool {
    (1..libc::IFNAMSIZ).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn open_error(name: &str, error: io::Error) -> TunError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOTDIR) => TunError::NoDevice,
        Some(libc::EACCES | libc::EPERM) => TunError::NotAllowed { name: name.to_owned() },
        Some(_) | None => TunError::Io { name: name.to_owned(), source: error },
    }
}

fn attach_error(name: &str, error: io::Error) -> TunError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TunError::NotAllowed { name: name.to_owned() },
        // EINVAL: an interface of that name exists and is no TUN.
        Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) => TunError::Taken { name: name.to_owned() },
        Some(_) | None => TunError::Io { name: name.to_owned(), source: error },
    }
}

/// Attaches the open device to the interface `name`, which is made by this.
fn set_interface(file: &File, name: &str) -> io::Result<()> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            // Both constants lie below 2^15, so they fit the kernel's short.
            ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short,
        },
    };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    #[expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper")]
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one `ifreq`, which `request` is and outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_refuse_are_refused_before() {
        for name in ["", "a-name-of-16-char", "a/b", "a b", "%d", "."] {
            assert!(matches!(TunFile::open(name), Err(TunError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn a_missing_device_says_how_to_get_it() {
        let error = open_error("shoal0", io::Error::from_raw_os_error(libc::ENOENT));
        assert!(error.to_string().contains("modprobe tun"));
    }
}
