//! Terminals and descriptors that travel: receives a terminal's master end, sets its size, passes descriptors on.
//!
//! Input: the socket to which a container runtime sends the master of a terminal that it made inside the container
//! (runc's `--console-socket`, see its manual on terminals). Output: that descriptor.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

use super::WindowSize;

/// Most descriptors in one message: the three standard streams.
pub(super) const DESCRIPTORS_MAX: usize = 3;

/// Where a runtime sends the terminal that it made. Its file goes when it is dropped.
pub(super) struct ConsoleSocket {
    listener: UnixListener,
    /// Absolute: runtimes change their working directory.
    pub(super) path: PathBuf,
    name: &'static str,
}

impl ConsoleSocket {
    /// Makes the socket in the working directory, under a name short enough for an address.
    pub(super) fn bind(name: &'static str) -> io::Result<Self> {
        let _ = fs::remove_file(name);
        let listener = UnixListener::bind(name)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: std::env::current_dir()?.join(name), name })
    }

    /// Takes the terminal that has been sent. To be called when the runtime has succeeded: it does not wait.
    pub(super) fn receive(&self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let (_, mut descriptors) = receive(&stream, &mut [0; 4096])?;
        descriptors.pop().ok_or_else(|| io::Error::other("the container's runtime sent no terminal"))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.name);
    }
}

/// Sets the size of a terminal; programs in it are told by SIGWINCH.
#[expect(unsafe_code, reason = "the size of a terminal is set by ioctl")]
pub(super) fn resize(master: BorrowedFd<'_>, size: WindowSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads one `winsize` at the address of one.
    match unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends bytes, and descriptors with the first of them.
pub(super) fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights };
    let sent = sendmsg::<UnixAddr>(stream.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    io::Write::write_all(&mut &*stream, &bytes[sent..])
}

/// Receives what there is: how many bytes (0 at the end), and the descriptors that came with them.
#[expect(unsafe_code, reason = "descriptors from a message have no owner yet")]
pub(super) fn receive(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    debug_assert!(space.capacity() >= DESCRIPTORS_MAX * size_of::<RawFd>());
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut owned = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            // SAFETY: the kernel has just made these descriptors for us; nobody else knows them.
            owned.extend(descriptors.into_iter().map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }));
        }
    }
    Ok((message.bytes, owned))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn descriptors_arrive_with_their_bytes() {
        let (one, two) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&one, b"hello", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 16];
        let (length, mut descriptors) = receive(&two, &mut buffer).unwrap();
        assert_eq!((&buffer[..length], descriptors.len()), (&b"hello"[..], 1));
        std::fs::File::from(descriptors.remove(0)).write_all(b"through").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }
}
