//! The connections to a shim: bytes and descriptors in, replies out. None of them is trusted to be quick.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde::Serialize;

use super::super::console;
use super::super::protocol::{LINE_BYTES_MAX, Request, line};

/// One connection.
pub(super) struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Client {
    /// Takes a new connection and sends the greeting.
    pub(super) fn greet<T: Serialize>(stream: UnixStream, greeting: &T) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let mut client = Self { stream, received: Vec::new(), descriptors: Vec::new() };
        client.stream.write_all(&line(greeting))?;
        Ok(client)
    }

    /// Reads what there is. An error means that the client is to be forgotten.
    pub(super) fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match console::receive(&self.stream, &mut buffer) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((length, descriptors)) => {
                    self.received.extend_from_slice(&buffer[..length]);
                    self.descriptors.extend(descriptors);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.received.len() > LINE_BYTES_MAX || self.descriptors.len() > console::DESCRIPTORS_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
    }

    /// Takes the next whole request out of what has been received.
    pub(super) fn next_request(&mut self) -> Option<Result<Request, serde_json::Error>> {
        let end = self.received.iter().position(|byte| *byte == b'\n')?;
        let request: Vec<u8> = self.received.drain(..=end).collect();
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        Some(serde_json::from_slice(&request))
    }

    /// Takes the descriptors that came with the present request.
    pub(super) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    pub(super) fn reply<T: Serialize>(&self, reply: &T, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        console::send(&self.stream, &line(reply), &descriptor.into_iter().collect::<Vec<_>>())
    }

    /// A second hold on the connection, for what is to be told later.
    pub(super) fn later(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Tells something on a connection whose client may be gone.
pub(super) fn tell<T: Serialize>(mut stream: &UnixStream, reply: &T) {
    let _ = stream.write_all(&line(reply));
}
