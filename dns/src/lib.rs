//! The embedded DNS server of shoal: answers service names from a table, forwards everything else.
//!
//! Input: the [`Names`] of the current plan ([`DnsServer::set_names`]) and questions over UDP and TCP. Output: answers.
//! Knows nothing of the planes; the table is replaced name by name while questions are answered, and an answer from
//! the table never waits for a forwarded one.

mod answer;
mod forward;
mod handler;
mod scopes;
mod server;
mod table;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_cluster::plan::names::Names;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::AbortHandle;

use crate::forward::Forwarder;
use crate::server::Shared;

/// Bytes of the receive buffer of a UDP socket: the kernel's default loses half of a burst of 1,000 questions.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// How many TCP connections the kernel keeps for us to accept.
const BACKLOG: i32 = 128;
/// Ports tried when any free port was asked for and the TCP half of it was taken.
const PORT_ATTEMPTS: usize = 16;

/// Who is asked about names outside the shoal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upstreams {
    /// The host's resolvers, as its `/etc/resolv.conf` says; the file is read again every few seconds while questions come.
    #[default]
    System,
    /// These, in this order.
    List(Vec<SocketAddr>),
}

/// How the server behaves.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Who is asked about names outside the shoal. Our own listeners are never asked. Default: the host's resolvers.
    pub upstreams: Upstreams,
    /// The file that names the host's resolvers. Default `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// How long each upstream may take, 100 ms to 10 s. Default 2 s: a resolver in good health takes less, and three
    /// of them still fit the patience of most clients (5 s and a second attempt).
    pub forward_timeout: Duration,
    /// Questions that may be with the upstreams at once; the next ones are answered with SERVFAIL. Default 256.
    pub forwards_max: usize,
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The address cannot be bound. Nothing is listening on it that was not before.
    #[error("the DNS server cannot listen on {address}: {source}; choose another address with --dns-listen or free it")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A DNS server with any number of listeners over one table of names. Closes them when dropped.
pub struct DnsServer {
    shared: Arc<Shared>,
    listeners: Mutex<HashMap<SocketAddr, [AbortHandle; 2]>>,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            upstreams: Upstreams::System,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            forward_timeout: Duration::from_secs(2),
            forwards_max: 256,
        }
    }
}

impl DnsServer {
    /// Makes a server that knows no names and listens nowhere yet.
    pub fn new(config: DnsConfig) -> Self {
        let timeout = config.forward_timeout.clamp(Duration::from_millis(100), Duration::from_secs(10));
        let forwarder = Forwarder::new(config.upstreams, config.resolv_conf, timeout);
        Self { shared: Arc::new(Shared::new(forwarder, config.forwards_max)), listeners: Mutex::default() }
    }

    /// Starts to listen on `address`, over UDP and TCP, in the network namespace of the calling thread, and returns
    /// the address bound: the port is chosen by the kernel if it was 0. Does nothing if it listens there already.
    /// Must be called within a tokio runtime, which then runs the listener.
    pub async fn listen(&self, address: SocketAddr) -> Result<SocketAddr, DnsError> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.contains_key(&address) {
            return Ok(address);
        }
        let (udp, tcp, bound) = bind(address).map_err(|source| DnsError::Bind { address, source })?;
        self.shared.own.lock().unwrap_or_else(PoisonError::into_inner).push(bound);
        let udp = tokio::spawn(server::serve_udp(udp, self.shared.clone())).abort_handle();
        let tcp = tokio::spawn(server::serve_tcp(tcp, self.shared.clone())).abort_handle();
        listeners.insert(bound, [udp, tcp]);
        tracing::debug!(address = %bound, "DNS server listens");
        Ok(bound)
    }

    /// Stops to listen on an address that [`Self::listen`] returned; connections from it end too. Does nothing if it
    /// does not listen there.
    pub fn unlisten(&self, address: SocketAddr) {
        let listener = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
        for task in listener.into_iter().flatten() {
            task.abort();
        }
        self.shared.own.lock().unwrap_or_else(PoisonError::into_inner).retain(|own| *own != address);
    }

    /// Returns the addresses on which it listens, in order.
    pub fn listening(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<_> =
            self.listeners.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        addresses.sort_unstable();
        addresses
    }

    /// Notes that questions from this address are those of a task: it finds the services that share a network with its own,
    /// and what it asks of names outside the shoal is put to these resolvers; with none, to those of all others.
    pub fn set_client(&self, address: IpAddr, service: &str, resolvers: &[IpAddr]) {
        self.shared.handler.table.scopes.set_client(address, Some(service));
        self.shared.forwarder.set_client(address, resolvers);
    }

    /// Forgets whose address this was.
    pub fn forget_client(&self, address: IpAddr) {
        self.shared.handler.table.scopes.set_client(address, None);
        self.shared.forwarder.set_client(address, &[]);
    }

    /// Makes the server answer exactly these names from the next question on.
    pub fn set_names(&self, names: &Names) {
        self.shared.handler.table.replace(names);
    }

    /// Reads the host's list of resolvers again at the next question that needs it.
    pub fn reload(&self) {
        self.shared.forwarder.reload();
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        for address in self.listening() {
            self.unlisten(address);
        }
    }
}

/// Binds both sockets of a listener to one port.
fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener, SocketAddr)> {
    let mut attempts = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        let udp = socket(address, Type::DGRAM, Protocol::UDP)?;
        udp.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        udp.bind(&address.into())?;
        let udp = UdpSocket::from_std(udp.into())?;
        let bound = udp.local_addr()?;
        let tcp = socket(bound, Type::STREAM, Protocol::TCP)?;
        tcp.set_reuse_address(true)?;
        attempts -= 1;
        match tcp.bind(&bound.into()).and_then(|()| tcp.listen(BACKLOG)) {
            Ok(()) => return Ok((udp, TcpListener::from_std(tcp.into())?, bound)),
            Err(_) if attempts > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
