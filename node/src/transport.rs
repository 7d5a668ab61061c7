//! The transport: messages and blobs between the nodes of one shoal, over libp2p and mutual TLS.
//!
//! Input: this node's identity, where to listen, the members' addresses, messages to send. Output: messages, and who
//! came and went. Strangers are refused inside TLS; joiners are handed to admission, on the same port. Delivery is
//! best effort: the core repairs what is lost. Membership is not decided here: a connection is only evidence.

mod counted;
mod door;
mod hub;
mod link;
mod message;
mod streams;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Stream, StreamProtocol, Swarm, Transport as _, connection_limits, tcp};
use shoal_cluster::id::NodeId;
use tokio::sync::{mpsc, oneshot};

use crate::identity::admission::Visitor;
use crate::identity::{Identity, IdentityError};
use counted::Counters;
pub use counted::Traffic;
use door::{Door, DoorError, lock, multiaddress};
use hub::{CONNECTION_IDLE, Command, Hub};
use message::Lane;

/// Longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Events that wait for the driver before peers are slowed down.
const EVENTS_WAITING_MAX: usize = 1024;
/// Time for a TCP connection to come up, TLS and hello included.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Incoming connections in their handshake, from all addresses.
const PENDING_INCOMING_MAX: u32 = 512;
/// Connections at a time, in both directions.
const ESTABLISHED_MAX: u32 = 4096;

/// Why the transport cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Somebody else listens there.
    #[error("{address} is in use; stop what listens there, or choose another address with --listen")]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The system does not let us listen there.
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What the transport tells the driver. `Connected` comes before the messages of a connection; messages that were
/// read already may come after `Lost` or `Closed`.
#[derive(Debug, PartialEq, Eq)]
pub enum TransportEvent {
    /// A member is connected: TLS and hellos went both ways. With the address where it listens, as far as is known.
    Connected(NodeId, SocketAddr),
    /// The last connection to a member broke: evidence that it may be gone. It is dialled again at once if its
    /// address is known, and [`TransportEvent::DialFailed`] tells more.
    Lost(NodeId),
    /// The last connection to a member was closed because nobody used it or on command. Says nothing of its health.
    Closed(NodeId),
    /// A message.
    Message {
        /// The node whose certificate the connection has.
        from: NodeId,
        /// At most [`MESSAGE_BYTES_MAX`] bytes, of whatever content.
        bytes: Vec<u8>,
    },
    /// A member could not be dialled. The messages that waited for it are dropped.
    DialFailed {
        /// The member.
        to: NodeId,
        /// Its machine answered that nothing listens there (or another node does): the process is gone. Otherwise
        /// silence or a broken handshake.
        refused: bool,
    },
    /// An address given to [`Transport::dial`] could not be dialled.
    SeedFailed {
        /// The address.
        address: SocketAddr,
        /// Why, in words.
        reason: String,
    },
    /// Somebody without a certificate of this shoal was refused, or refused us. At most one a minute per address.
    Refused {
        /// Where the other is.
        address: SocketAddr,
        /// Why, in words.
        reason: String,
    },
}

/// A handle to the transport. Cheap to clone; when the last one is gone, all connections close. No method blocks.
#[derive(Clone)]
pub struct Transport {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("listen", &self.shared.listen).finish_non_exhaustive()
    }
}

/// Where streams go that peers open.
type Server = Option<mpsc::Sender<(NodeId, Stream)>>;

/// What handle and tasks share.
struct Shared {
    listen: SocketAddr,
    node: NodeId,
    lanes: Mutex<BTreeMap<NodeId, Arc<Lane>>>,
    peers: Mutex<BTreeMap<NodeId, SocketAddr>>,
    blobs: Mutex<Server>,
    tasks: Mutex<Server>,
    counters: Arc<Counters>,
}

impl Shared {
    /// Returns what is shared about one peer, made on first use.
    fn lane(&self, node: NodeId) -> Arc<Lane> {
        lock(&self.lanes).entry(node).or_insert_with(|| Arc::new(Lane::new())).clone()
    }
}

/// The behaviours of our swarm.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Behaviour {
    streams: streams::Streams,
    limits: connection_limits::Behaviour,
}

/// Lets the kind of a TCP failure be found behind libp2p's boxes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct TcpFailure(#[source] io::Error);

/// Lets the reason of the door be found behind libp2p's boxes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct DoorFailure(#[source] DoorError);

impl Transport {
    /// Starts to listen on `listen` (port 0 takes a free one). Joiners go to `admissions`, see
    /// [`crate::identity::admission::serve`]. Must be called inside a tokio runtime.
    pub fn start(
        identity: &Identity,
        listen: SocketAddr,
        admissions: mpsc::Sender<Visitor>,
    ) -> Result<(Self, mpsc::Receiver<TransportEvent>), TransportError> {
        let listen = find_port(listen)?;
        let (events, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
        let counters = Arc::new(Counters::default());
        let door = Arc::new(Door::new(identity, listen.port(), admissions, events.clone(), counters.clone())?);
        let mut swarm = new_swarm(identity, door.clone());
        swarm
            .listen_on(multiaddress(listen))
            .map_err(|error| TransportError::Listen { address: listen, source: io::Error::other(error) })?;
        let shared = Arc::new(Shared {
            listen,
            node: identity.node_id(),
            lanes: Mutex::default(),
            peers: Mutex::default(),
            blobs: Mutex::default(),
            tasks: Mutex::default(),
            counters,
        });
        let (commands, requests) = mpsc::unbounded_channel();
        tokio::spawn(Hub::new(swarm, door, shared.clone(), events, requests).run());
        Ok((Self { commands, shared }, receiver))
    }

    /// Returns where this node listens.
    pub fn listen_address(&self) -> SocketAddr {
        self.shared.listen
    }

    /// Sends a message, connecting first where necessary. Dropped and counted if it is longer than
    /// [`MESSAGE_BYTES_MAX`], if the peer cannot be reached, or, oldest first, if too much waits for it.
    pub fn send(&self, to: NodeId, bytes: Vec<u8>) {
        if to == self.shared.node || bytes.len() > MESSAGE_BYTES_MAX {
            debug_assert!(bytes.len() <= MESSAGE_BYTES_MAX, "the core makes messages that fit");
            Counters::add(&self.shared.counters.dropped_messages, 1);
            return;
        }
        let lane = self.shared.lane(to);
        Counters::add(&self.shared.counters.dropped_messages, lane.push(bytes));
        if !lane.connected.load(Ordering::Acquire) && !lane.wanted.swap(true, Ordering::AcqRel) {
            self.command(Command::Wanted(to));
        }
    }

    /// Says where all members listen: a level, not a change. Others are forgotten once they are not connected.
    pub fn set_addresses(&self, addresses: BTreeMap<NodeId, Vec<SocketAddr>>) {
        self.command(Command::SetAddresses(addresses));
    }

    /// Connects to whoever listens at an address, if it is a member: for seeds whose id is not known.
    pub fn dial(&self, address: SocketAddr) {
        self.command(Command::Dial(address));
    }

    /// Closes all connections to a member. It may come back.
    #[cfg_attr(not(test), expect(dead_code, reason = "for revocation, which comes with roles"))]
    pub fn close(&self, node: NodeId) {
        self.command(Command::Close(node));
    }

    /// Returns who is connected, and where they listen.
    pub fn peers(&self) -> BTreeMap<NodeId, SocketAddr> {
        lock(&self.shared.peers).clone()
    }

    /// Returns what has been carried since the start.
    pub fn traffic(&self) -> Traffic {
        self.shared.counters.read()
    }

    /// Opens a stream for one blob, connecting first where necessary.
    pub(crate) async fn open_blob_stream(&self, to: NodeId) -> io::Result<Stream> {
        self.open_stream(to, streams::BLOBS).await
    }

    /// Opens a stream for one request about a task, connecting first where necessary.
    pub(crate) async fn open_task_stream(&self, to: NodeId) -> io::Result<Stream> {
        self.open_stream(to, streams::TASKS).await
    }

    async fn open_stream(&self, to: NodeId, protocol: StreamProtocol) -> io::Result<Stream> {
        let (reply, opened) = oneshot::channel();
        self.command(Command::Open { to, protocol, dial: true, reply });
        opened.await.unwrap_or_else(|_| Err(io::ErrorKind::NotConnected.into()))
    }

    /// Returns the streams for blobs that peers open from now on; `waiting_max` may wait, more are closed.
    pub(crate) fn accept_blob_streams(&self, waiting_max: usize) -> mpsc::Receiver<(NodeId, Stream)> {
        accept(&self.shared.blobs, waiting_max)
    }

    /// Returns the streams about tasks that peers open from now on; `waiting_max` may wait, more are closed.
    pub(crate) fn accept_task_streams(&self, waiting_max: usize) -> mpsc::Receiver<(NodeId, Stream)> {
        accept(&self.shared.tasks, waiting_max)
    }

    fn command(&self, command: Command) {
        // Fails only if the hub is gone, which happens when the runtime ends.
        let _ = self.commands.send(command);
    }
}

fn accept(server: &Mutex<Server>, waiting_max: usize) -> mpsc::Receiver<(NodeId, Stream)> {
    let (sender, receiver) = mpsc::channel(waiting_max);
    *lock(server) = Some(sender);
    receiver
}

/// Finds out whether the address is free, because libp2p shares ports and would not notice. Chooses a port for port 0.
fn find_port(address: SocketAddr) -> Result<SocketAddr, TransportError> {
    match TcpListener::bind(address).and_then(|listener| listener.local_addr()) {
        Ok(address) => Ok(address),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(TransportError::InUse { address }),
        Err(source) => Err(TransportError::Listen { address, source }),
    }
}

/// Builds TCP, door and behaviours into a swarm.
fn new_swarm(identity: &Identity, door: Arc<Door>) -> Swarm<Behaviour> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true)).map_err(TcpFailure);
    let through_door = tcp.and_then(move |socket, point| {
        let passing = door.pass(socket, point);
        Box::pin(async move { passing.await.map_err(DoorFailure) })
    });
    let boxed = TransportTimeout::with_outgoing_timeout(through_door, DIAL_TIMEOUT)
        .map(|(peer, connection), _| (peer, libp2p::core::muxing::StreamMuxerBox::new(connection)))
        .boxed();
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_INCOMING_MAX))
        .with_max_established(Some(ESTABLISHED_MAX));
    let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(CONNECTION_IDLE);
    let peer = identity.key().libp2p().public().to_peer_id();
    Swarm::new(boxed, Behaviour::new(connection_limits::Behaviour::new(limits)), peer, config)
}

#[cfg(test)]
pub(crate) mod tests;
