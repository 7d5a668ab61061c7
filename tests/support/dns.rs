//! DNS questions by hand: what a client sees on the wire, without the server's own library.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Node, inside};

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// 0 no error, 3 no such name.
    pub(crate) code: u8,
    /// The addresses of its A records, sorted.
    pub(crate) addresses: Vec<Ipv4Addr>,
    /// Records in the authority section.
    pub(crate) authorities: u16,
}

/// Asks a node, from within its host, for the A records of a name.
pub(crate) fn ask(node: &Node, name: &str) -> Result<Answer> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len())?);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let length = question.len();
    let answer = inside(&node.namespace, move || -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.send_to(&question, "127.0.0.1:7953")?;
        let mut buffer = vec![0; 4096];
        let length = socket.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    })??;
    read(&answer, length).context("a malformed answer")
}

fn read(bytes: &[u8], mut at: usize) -> Option<Answer> {
    let number = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let mut addresses = Vec::new();
    for _ in 0..number(6)? {
        // A name ends with a zero, or with a pointer of two bytes.
        while bytes.get(at)? & 0xc0 == 0 && bytes[at] != 0 {
            at += 1 + usize::from(bytes[at]);
        }
        at += if bytes[at] == 0 { 1 } else { 2 };
        let (kind, length) = (number(at)?, usize::from(number(at + 8)?));
        if let (1, [a, b, c, d]) = (kind, bytes.get(at + 10..at + 10 + length)?) {
            addresses.push(Ipv4Addr::new(*a, *b, *c, *d));
        }
        at += 10 + length;
    }
    addresses.sort_unstable();
    Some(Answer { code: bytes.get(3)? & 0x0f, addresses, authorities: number(8)? })
}
