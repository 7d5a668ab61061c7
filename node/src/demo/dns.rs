//! Real DNS questions of the demo, over UDP, from inside a host.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};

use super::namespace::Namespace;

/// Where each node answers the questions of its host.
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7953);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a name resolved to.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    /// The addresses, sorted.
    pub(super) addresses: Vec<Ipv4Addr>,
    /// How long the answer took.
    pub(super) took: Duration,
}

/// Asks the node of a host for the IPv4 addresses of `name`.
pub(super) async fn resolve(namespace: &Namespace, name: &'static str) -> io::Result<Resolved> {
    let namespace = namespace.clone();
    tokio::task::spawn_blocking(move || namespace.run(move || ask(name))?).await.map_err(io::Error::other)?
}

fn ask(name: &str) -> io::Result<Resolved> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(name).map_err(io::Error::other)?, RecordType::A));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(SERVER)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let begun = Instant::now();
    socket.send(&question.to_vec().map_err(io::Error::other)?)?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    let took = begun.elapsed();
    let answer = Message::from_vec(&buffer[..length]).map_err(io::Error::other)?;
    let address = |data: &RData| if let RData::A(address) = data { Some(address.0) } else { None };
    let mut addresses: Vec<_> = answer.answers.iter().filter_map(|record| address(&record.data)).collect();
    addresses.sort_unstable();
    Ok(Resolved { addresses, took })
}
