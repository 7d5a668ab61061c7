//! The tunnel's end: one UDP socket with QUIC on it, set up for carrying datagrams rather than streams.
//!
//! Input: addresses and the TLS configurations. Output: a quinn endpoint and the settings of its connections; and the
//! hello, by which each side learns that the other has accepted it. See `docs/protocol.md#tunnel`.

use std::any::Any;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{Connection, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

/// What QUIC adds to an inner packet, in bytes, at most: flags 1, connection id 8, packet number 4, tag 16, and the
/// datagram frame's header 9 (RFC 9000 §17.3, RFC 9221 §4).
pub(crate) const OVERHEAD: u16 = 38;
/// The smallest inner MTU: what IPv6 demands of every link (RFC 8200 §5).
pub const MTU_MIN: u16 = 1280;
/// The largest inner MTU. Ten datagrams that leave together must fit into 64 KiB.
pub const MTU_MAX: u16 = 6000;

/// A peer that says nothing for this long is gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an idle connection says something: three may be lost within [`IDLE_TIMEOUT`].
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(2500);
/// Datagrams that may wait for the network, per connection; about 5 ms at 1.6 Gbit/s.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// Datagrams that may wait for this process, per connection.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Bytes in flight per connection. Fixed: the inner connections do congestion control, and twice is once too often.
const WINDOW_BYTES: u64 = 4 << 20;
/// What is asked of the kernel for the socket, each way; it gives what its limits allow.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// Handshakes at a time; more are refused.
pub(crate) const HANDSHAKES_MAX: usize = 256;

/// Length of the hello in bytes: its version and the sender's session.
const HELLO_BYTES: usize = 9;
const HELLO_VERSION: u8 = 1;

/// Why the tunnel's socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// Another process listens there.
    #[error("udp port {} on {} is in use: stop the process that has it, or choose another tunnel port", address.port(), address.ip())]
    PortInUse {
        /// Where we should listen.
        address: SocketAddr,
    },
    /// The address is not one of this host's.
    #[error("{} is not an address of this host: choose one that is, or 0.0.0.0", address.ip())]
    NotOurAddress {
        /// Where we should listen.
        address: SocketAddr,
    },
    /// Anything else, in the system's words.
    #[error("cannot listen on udp {address}")]
    Io {
        /// Where we should listen.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The TLS configuration cannot be used for QUIC.
    #[error("the tls configuration lacks tls 1.3 with aes-128-gcm, which quic needs: use a provider that has it")]
    Tls(#[from] NoInitialCipherSuite),
}

/// Why a connection is closed; the number is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// The node stops.
    Shutdown = 0,
    /// The certificate names no node, or another than was dialled.
    Identity = 1,
    /// The node is not in our routes, perhaps not yet.
    NoRoute = 2,
    /// There is another connection between the two nodes, and it stays.
    Duplicate = 3,
    /// A newer connection of the same peer took its place.
    Replaced = 4,
    /// No hello, or not one we understand.
    Hello = 5,
}

impl Close {
    /// Closes `connection` with this code and its text.
    pub(crate) fn close(self, connection: &Connection) {
        connection.close(VarInt::from_u32(self as u32), self.text().as_bytes());
    }

    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Shutdown => "the node is stopping",
            Self::Identity => "the certificate does not name the node expected",
            Self::NoRoute => "the node is not in this node's routes",
            Self::Duplicate => "another connection between these nodes stays",
            Self::Replaced => "a newer connection took its place",
            Self::Hello => "no hello that this node understands",
        }
    }
}

/// Opens the UDP socket of the tunnel, in the network namespace of the calling thread.
pub(crate) fn bind(address: SocketAddr) -> Result<std::net::UdpSocket, TunnelError> {
    bind_socket(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => TunnelError::PortInUse { address },
        io::ErrorKind::AddrNotAvailable => TunnelError::NotOurAddress { address },
        _ => TunnelError::Io { address, source },
    })
}

fn bind_socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    // Bigger buffers are better, not needed: the kernel cuts them to its own limits.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The two configurations of the endpoint, for connections it makes and for those it accepts.
pub(crate) struct Configs {
    pub(crate) client: quinn::ClientConfig,
    pub(crate) server: quinn::ServerConfig,
}

impl Configs {
    /// Puts QUIC around the TLS configurations, for inner packets of up to `mtu` bytes.
    pub(crate) fn new(
        client: Arc<rustls::ClientConfig>,
        server: Arc<rustls::ServerConfig>,
        mtu: u16,
    ) -> Result<Self, TunnelError> {
        let transport = Arc::new(transport(mtu));
        let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
        client.transport_config(Arc::clone(&transport));
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
        server.transport_config(transport).max_incoming(HANDSHAKES_MAX);
        Ok(Self { client, server })
    }
}

/// Makes the endpoint on `socket`, in the runtime of the calling task.
pub(crate) fn endpoint(configs: Configs, socket: std::net::UdpSocket) -> io::Result<quinn::Endpoint> {
    let mut config = EndpointConfig::default();
    // Never an error: the bound is 1200 or more.
    let _ = config.max_udp_payload_size(MTU_MAX + OVERHEAD);
    let mut endpoint = quinn::Endpoint::new(config, Some(configs.server), socket, Arc::new(quinn::TokioRuntime))?;
    endpoint.set_default_client_config(configs.client);
    Ok(endpoint)
}

fn transport(mtu: u16) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu + OVERHEAD);
    let idle = IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32));
    let mut config = TransportConfig::default();
    config
        // The inner MTU fits from the first packet on; and an IPv6 packet of 1280 fits whatever the path does to us.
        .initial_mtu(mtu + OVERHEAD)
        .min_mtu(MTU_MIN + OVERHEAD)
        .mtu_discovery_config(Some(discovery))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE_INTERVAL))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(1024))
        .receive_window(VarInt::from_u32(4096))
        .datagram_send_buffer_size(SEND_BUFFER_BYTES)
        .datagram_receive_buffer_size(Some(RECEIVE_BUFFER_BYTES))
        .congestion_controller_factory(Arc::new(FixedWindow));
    config
}

/// A congestion controller that does not control: the window is always [`WINDOW_BYTES`].
#[derive(Clone, Copy, Debug)]
struct FixedWindow;

impl ControllerFactory for FixedWindow {
    fn build(self: Arc<Self>, _now: Instant, _current_mtu: u16) -> Box<dyn Controller> {
        Box::new(*self)
    }
}

impl Controller for FixedWindow {
    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, _persistent: bool, _lost_bytes: u64) {}

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        WINDOW_BYTES
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        WINDOW_BYTES
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The hello could not be exchanged; the connection is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("the connection was lost before the hello: {0}")]
    Connection(#[from] quinn::ConnectionError),
    #[error("the hello could not be sent: {0}")]
    Write(#[from] quinn::WriteError),
    #[error("the hello could not be read: {0}")]
    Read(#[from] quinn::ReadExactError),
    #[error("the peer speaks hello version {found}, this node {HELLO_VERSION}: run the same version of shoal on both")]
    Version { found: u8 },
}

/// Sends our hello and waits for the peer's; returns the peer's session, which is another after each of its restarts.
///
/// Only after this is the connection up: a TLS 1.3 client that was refused learns of it here, not in its handshake.
pub(crate) async fn hello(connection: &Connection, session: u64) -> Result<u64, HelloError> {
    let send = async {
        let mut stream = connection.open_uni().await?;
        let mut bytes = [HELLO_VERSION; HELLO_BYTES];
        bytes[1..].copy_from_slice(&session.to_be_bytes());
        stream.write_all(&bytes).await?;
        // Finishing a stream twice is the only error, and it is finished once.
        let _ = stream.finish();
        Ok::<_, HelloError>(())
    };
    let receive = async {
        let mut stream = connection.accept_uni().await?;
        let mut bytes = [0; HELLO_BYTES];
        stream.read_exact(&mut bytes).await?;
        let [version, session @ ..] = bytes;
        if version != HELLO_VERSION {
            return Err(HelloError::Version { found: version });
        }
        Ok(u64::from_be_bytes(session))
    };
    let ((), session) = futures::try_join!(send, receive)?;
    Ok(session)
}
