//! The door: everything between a TCP connection and a peer of this shoal.
//!
//! Input: a TCP stream. Output: the peer whose certificate of our CA TLS has verified, with a multiplexed connection;
//! or a visitor handed to admission; or a stranger, refused inside TLS before any behaviour sees it. The first bytes
//! inside TLS are a hello in both directions, because a TLS 1.3 client learns of its rejection only at its first read:
//! a peer counts as connected after that. See `docs/protocol.md#transport`.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use futures_rustls::{LazyConfigAcceptor, TlsConnector, TlsStream};
use libp2p::PeerId;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::core::{ConnectedPoint, Multiaddr};
use libp2p::multiaddr::Protocol;
use libp2p::tcp::tokio::TcpStream;
use libp2p::yamux;
use rustls::server::Acceptor;
use rustls::{AlertDescription, CertificateError, ClientConfig, ServerConfig};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::TransportEvent;
use super::counted::{Counted, Counters};
use crate::identity::admission::Visitor;
use crate::identity::{ADMIT_ALPN, GOSSIP_ALPN, Identity, IdentityError, node_id_of, peer_id_of, server_name};

/// Time for TLS and hello, on both sides.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes of one address at a time, so that slow strangers do not keep members out.
const PENDING_PER_ADDRESS_MAX: u32 = 32;
/// Written data that a peer does not acknowledge for this long ends the connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(8);
/// An idle connection is probed by TCP after this time.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// One address is complained about this often.
const NOTICE_INTERVAL: Duration = Duration::from_secs(60);
/// Addresses whose complaints are remembered.
const NOTICES_MAX: usize = 1024;
/// Version of the hello.
const HELLO_VERSION: u16 = 1;
/// Length in bytes of the hello of this version; later ones may be longer, never shorter.
const HELLO_BYTES: u8 = 4;
/// The multiplexer's name, which the ALPN implies.
const YAMUX: &str = "/yamux/1.0.0";

/// A multiplexed connection to a peer.
pub(super) type Connection = yamux::Muxer<TlsStream<Counted<TcpStream>>>;

/// Why nobody came through the door.
#[derive(Debug, thiserror::Error)]
pub(super) enum DoorError {
    #[error("a joiner, handed to admission")]
    Visitor,
    #[error("too many connections of {0} are in their handshake")]
    TooMany(IpAddr),
    #[error("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    #[error("{0}")]
    Stranger(String),
    #[error("its certificate is not that of a node")]
    NotANode,
    #[error("it speaks version {0} of the transport, this node version {HELLO_VERSION}")]
    Version(u16),
    #[error("the connection broke: {0}")]
    Io(io::Error),
}

/// What the door needs to know; shared by all handshakes.
pub(super) struct Door {
    gossip_server: Arc<ServerConfig>,
    gossip_client: Arc<ClientConfig>,
    admit_server: Arc<ServerConfig>,
    visitors: mpsc::Sender<Visitor>,
    events: mpsc::Sender<TransportEvent>,
    counters: Arc<Counters>,
    /// The port on which this node listens, told to peers.
    port: u16,
    pending: Mutex<BTreeMap<IpAddr, u32>>,
    notices: Mutex<BTreeMap<IpAddr, Instant>>,
    /// The port that each peer said it listens on, until its connection is reported.
    ports: Mutex<BTreeMap<PeerId, u16>>,
}

impl Door {
    pub(super) fn new(
        identity: &Identity,
        port: u16,
        visitors: mpsc::Sender<Visitor>,
        events: mpsc::Sender<TransportEvent>,
        counters: Arc<Counters>,
    ) -> Result<Self, IdentityError> {
        Ok(Self {
            gossip_server: identity.gossip_server()?,
            gossip_client: identity.gossip_client()?,
            admit_server: identity.admit_server()?,
            visitors,
            events,
            counters,
            port,
            pending: Mutex::default(),
            notices: Mutex::default(),
            ports: Mutex::default(),
        })
    }

    /// Takes a fresh TCP connection, whoever dialled, to a verified peer.
    pub(super) async fn pass(
        self: Arc<Self>,
        socket: TcpStream,
        point: ConnectedPoint,
    ) -> Result<(PeerId, Connection), DoorError> {
        let address = socket.0.peer_addr().map_err(DoorError::Io)?;
        set_socket_options(&socket);
        let socket = Counted::new(socket, self.counters.clone());
        let passed = match point {
            ConnectedPoint::Dialer { .. } => timeout(HANDSHAKE_TIMEOUT, self.pass_out(socket)).await,
            ConnectedPoint::Listener { .. } => {
                let _turn = self.take_turn(address.ip())?;
                timeout(HANDSHAKE_TIMEOUT, self.pass_in(socket, address)).await
            }
        };
        let passed = passed.unwrap_or(Err(DoorError::Timeout));
        if let Err(error) = &passed {
            self.complain(address, &point, error);
        }
        passed
    }

    async fn pass_in(
        &self,
        socket: Counted<TcpStream>,
        address: SocketAddr,
    ) -> Result<(PeerId, Connection), DoorError> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), socket).await.map_err(stranger)?;
        let wants_admission = start.client_hello().alpn().is_some_and(|mut names| names.any(|name| name == ADMIT_ALPN));
        if wants_admission {
            let stream = start.into_stream(self.admit_server.clone()).await.map_err(stranger)?;
            if self.visitors.try_send(Visitor { stream: Box::new(stream), address }).is_err() {
                warn!(%address, "too many joiners at once; one was turned away");
            }
            return Err(DoorError::Visitor);
        }
        let stream = start.into_stream(self.gossip_server.clone()).await.map_err(stranger)?;
        let (peer, stream) = self.greet(stream.into()).await?;
        let connection = yamux::Config::default().upgrade_inbound(stream, YAMUX).await.map_err(DoorError::Io)?;
        Ok((peer, connection))
    }

    async fn pass_out(&self, socket: Counted<TcpStream>) -> Result<(PeerId, Connection), DoorError> {
        let connecting = TlsConnector::from(self.gossip_client.clone()).connect(server_name(), socket);
        let stream = connecting.await.map_err(stranger)?;
        let (peer, stream) = self.greet(stream.into()).await?;
        let connection = yamux::Config::default().upgrade_outbound(stream, YAMUX).await.map_err(DoorError::Io)?;
        Ok((peer, connection))
    }

    /// Exchanges hellos with a peer that TLS has verified, and reads from its certificate who it is.
    async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: TlsStream<S>,
    ) -> Result<(PeerId, TlsStream<S>), DoorError> {
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(GOSSIP_ALPN) {
            return Err(DoorError::Stranger("it did not ask for gossip".to_owned()));
        }
        let node = session.peer_certificates().and_then(node_id_of).ok_or(DoorError::NotANode)?;
        let peer = peer_id_of(&node);
        let [version, port] = [HELLO_VERSION, self.port].map(u16::to_be_bytes);
        let hello = [&[HELLO_BYTES], version.as_slice(), &port].concat();
        stream.write_all(&hello).await.map_err(stranger)?;
        stream.flush().await.map_err(stranger)?;
        let port = read_hello(&mut stream).await?;
        let mut ports = lock(&self.ports);
        if ports.len() >= NOTICES_MAX {
            ports.clear();
        }
        ports.insert(peer, port);
        drop(ports);
        Ok((peer, stream))
    }

    /// Returns where a peer listens, as far as its hello and the source address of its connection tell.
    pub(super) fn listen_address(&self, peer: &PeerId, point: &ConnectedPoint) -> Option<SocketAddr> {
        let port = lock(&self.ports).remove(peer);
        match point {
            ConnectedPoint::Dialer { address, .. } => socket_address(address),
            ConnectedPoint::Listener { send_back_addr, .. } => {
                let source = socket_address(send_back_addr)?;
                Some(SocketAddr::new(source.ip(), port.unwrap_or(source.port())))
            }
        }
    }

    /// Logs and reports a refusal, once a minute for each address.
    fn complain(&self, address: SocketAddr, point: &ConnectedPoint, error: &DoorError) {
        match error {
            DoorError::Visitor => return,
            DoorError::Io(_) | DoorError::Timeout => {
                debug!(%address, %error, "a connection came to nothing");
                return;
            }
            DoorError::Stranger(_) | DoorError::NotANode | DoorError::Version(_) | DoorError::TooMany(_) => {}
        }
        if !self.is_news(address.ip()) {
            debug!(%address, %error, "refused again");
            return;
        }
        if point.is_dialer() {
            warn!(%address, reason = %error, "this address does not lead to a node of this shoal");
        } else {
            warn!(%address, reason = %error, "refused a stranger on the gossip port");
        }
        // The event is for counting; when the driver is behind, the log line has to do.
        let _ = self.events.try_send(TransportEvent::Refused { address, reason: error.to_string() });
    }

    fn is_news(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        let mut notices = lock(&self.notices);
        notices.retain(|_, at| now.duration_since(*at) < NOTICE_INTERVAL);
        if notices.contains_key(&address) || notices.len() >= NOTICES_MAX {
            return false;
        }
        notices.insert(address, now);
        true
    }

    /// Counts a handshake of this address for as long as the returned value lives.
    fn take_turn(&self, address: IpAddr) -> Result<Turn<'_>, DoorError> {
        let mut pending = lock(&self.pending);
        let count = pending.entry(address).or_insert(0);
        if *count >= PENDING_PER_ADDRESS_MAX {
            return Err(DoorError::TooMany(address));
        }
        *count += 1;
        Ok(Turn { door: self, address })
    }
}

/// One handshake in progress.
struct Turn<'a> {
    door: &'a Door,
    address: IpAddr,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut pending = lock(&self.door.pending);
        if let Some(count) = pending.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&self.address);
            }
        }
    }
}

/// Reads a hello and returns the port in it.
async fn read_hello(stream: &mut (impl AsyncRead + Unpin)) -> Result<u16, DoorError> {
    let mut length = [0];
    stream.read_exact(&mut length).await.map_err(stranger)?;
    let mut body = vec![0; usize::from(length[0])];
    stream.read_exact(&mut body).await.map_err(stranger)?;
    match body[..] {
        [a, b, port_high, port_low, ..] if u16::from_be_bytes([a, b]) == HELLO_VERSION => {
            Ok(u16::from_be_bytes([port_high, port_low]))
        }
        [a, b, ..] => Err(DoorError::Version(u16::from_be_bytes([a, b]))),
        _ => Err(DoorError::Version(0)),
    }
}

/// Says in words for an operator what TLS found wrong.
fn stranger(error: io::Error) -> DoorError {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return DoorError::Io(error);
    };
    DoorError::Stranger(match tls {
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => format!("its certificate is not valid now, or a clock is wrong ({tls})"),
        rustls::Error::InvalidCertificate(_) => format!("its certificate is not of this shoal ({tls})"),
        rustls::Error::NoCertificatesPresented => "it shows no certificate".to_owned(),
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::DecryptError
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired,
        ) => format!("it refuses our certificate, so it belongs to another shoal ({tls})"),
        rustls::Error::NoApplicationProtocol
        | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "it does not speak our gossip".to_owned()
        }
        _ => format!("it does not speak our TLS ({tls})"),
    })
}

/// Makes TCP notice a silent death in seconds; the defaults of the system are minutes to hours.
fn set_socket_options(socket: &TcpStream) {
    let socket = socket2::SockRef::from(&socket.0);
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
    let set = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX)).and_then(|()| socket.set_tcp_keepalive(&keepalive));
    if let Err(error) = set {
        debug!(%error, "cannot set the timeouts of a connection");
    }
}

/// Returns the socket address in a multiaddress of the form `/ip…/tcp/…`.
pub(super) fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// Returns the multiaddress of a socket address.
pub(super) fn multiaddress(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// Locks a map; a panic elsewhere while it was held leaves nothing half done here.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
