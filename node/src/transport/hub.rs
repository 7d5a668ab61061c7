//! The hub: the one task that owns the libp2p swarm and knows who is connected.
//!
//! Input: commands of the driver and of the tasks that write, events of the swarm. Output: [`TransportEvent`]s, and
//! streams for who asked. Messages do not pass through it.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionError, ConnectionId, DialError, SwarmEvent};
use libp2p::{PeerId, StreamProtocol, Swarm};
use shoal_cluster::id::NodeId;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::{debug, error, info};

use super::counted::Counters;
use super::door::{Door, lock, multiaddress};
use super::link::Link;
use super::message::{Lane, read_messages, write_messages};
use super::streams::{Arrived, BLOBS, MESSAGES, Reply, Streams, TASKS};
use super::{Behaviour, BehaviourEvent, Shared, TransportEvent};
use crate::identity::{node_id_of_peer, peer_id_of};

/// A connection without streams is closed after this time.
pub(super) const CONNECTION_IDLE: Duration = Duration::from_secs(120);
/// A connection that ends although it was used within this time was lost; otherwise the peer closed it as idle.
const IN_USE: Duration = Duration::from_secs(90);
/// Message streams of all peers at a time.
const READERS_MAX: usize = 4096;
/// Addresses tried for one peer.
const ADDRESSES_MAX: usize = 8;

const _: () = assert!(IN_USE.as_secs() < CONNECTION_IDLE.as_secs());

/// What the hub is asked to do.
pub(super) enum Command {
    /// These are the members and where they listen.
    SetAddresses(BTreeMap<NodeId, Vec<SocketAddr>>),
    /// Dial an address, whoever is there.
    Dial(SocketAddr),
    /// Close all connections to a peer.
    Close(NodeId),
    /// Messages wait for a peer that is not connected.
    Wanted(NodeId),
    /// Open a stream; if `dial` is set, connect first where necessary.
    Open { to: NodeId, protocol: StreamProtocol, dial: bool, reply: Reply },
    /// A write to this peer did not end.
    Stuck(NodeId),
}

/// The task's state.
pub(super) struct Hub {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) door: Arc<Door>,
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::Sender<TransportEvent>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    own: (mpsc::UnboundedSender<Command>, mpsc::UnboundedReceiver<Command>),
    links: BTreeMap<NodeId, Link>,
    addresses: BTreeMap<NodeId, Vec<SocketAddr>>,
    seeds: BTreeMap<ConnectionId, SocketAddr>,
    readers: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl Hub {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        door: Arc<Door>,
        shared: Arc<Shared>,
        events: mpsc::Sender<TransportEvent>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self {
            swarm,
            door,
            shared,
            events,
            commands,
            own: mpsc::unbounded_channel(),
            links: BTreeMap::new(),
            addresses: BTreeMap::new(),
            seeds: BTreeMap::new(),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            tasks: JoinSet::new(),
        }
    }

    /// Works until all handles of the transport are gone; then all connections close.
    pub(super) async fn run(mut self) {
        loop {
            while self.tasks.try_join_next().is_some() {}
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                Some(command) = self.own.1.recv() => self.obey(command).await,
                event = self.swarm.select_next_some() => self.note(event).await,
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::SetAddresses(addresses) => self.set_addresses(addresses),
            Command::Dial(address) => self.dial_seed(address),
            Command::Close(node) => self.close(node, true).await,
            Command::Stuck(node) => self.close(node, false).await,
            Command::Wanted(node) => self.want(node).await,
            Command::Open { to, protocol, dial, reply } => self.open(to, protocol, dial, reply).await,
        }
    }

    fn set_addresses(&mut self, addresses: BTreeMap<NodeId, Vec<SocketAddr>>) {
        self.addresses = addresses;
        let now = Instant::now();
        let (known, shared) = (&self.addresses, &self.shared);
        self.links.retain(|node, link| {
            let keep = known.contains_key(node) || !link.is_idle(now);
            if !keep {
                lock(&shared.lanes).remove(node);
            }
            keep
        });
    }

    fn dial_seed(&mut self, address: SocketAddr) {
        let options = DialOpts::unknown_peer_id().address(multiaddress(address)).allocate_new_port().build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.seeds.insert(connection, address);
            }
            Err(error) => debug!(%address, %error, "cannot dial a seed"),
        }
    }

    /// Closes all connections to a peer. It counts as gone at once: it may be back before they have ended.
    async fn close(&mut self, node: NodeId, planned: bool) {
        let Some(link) = self.links.get_mut(&node).filter(|link| !link.connections.is_empty()) else { return };
        for (connection, _) in std::mem::take(&mut link.connections) {
            self.swarm.close_connection(connection);
        }
        self.end_link(node, planned).await;
    }

    async fn want(&mut self, node: NodeId) {
        let link = self.links.entry(node).or_insert_with(|| Link::new(self.shared.lane(node)));
        if !link.connections.is_empty() || link.dialling {
            return;
        }
        if link.may_dial(Instant::now()) {
            self.dial(node).await;
        } else {
            link.lane.wanted.store(false, Ordering::Release);
            Counters::add(&self.shared.counters.dropped_messages, link.lane.clear());
        }
    }

    async fn dial(&mut self, node: NodeId) {
        let mut addresses = self.addresses.get(&node).cloned().unwrap_or_default();
        addresses.truncate(ADDRESSES_MAX);
        let options = DialOpts::peer_id(peer_id_of(&node))
            .condition(PeerCondition::NotDialing)
            .addresses(addresses.into_iter().map(multiaddress).collect())
            .allocate_new_port()
            .build();
        if let Some(link) = self.links.get_mut(&node) {
            link.dialling = true;
        }
        if let Err(error) = self.swarm.dial(options) {
            // Without an address the swarm does not even begin, and no event follows.
            self.note_unreachable(node, &error).await;
        }
    }

    async fn open(&mut self, to: NodeId, protocol: StreamProtocol, dial: bool, reply: Reply) {
        let link = self.links.entry(to).or_insert_with(|| Link::new(self.shared.lane(to)));
        if let Some((connection, _)) = link.connections.last() {
            self.swarm.behaviour_mut().streams.open(peer_id_of(&to), *connection, protocol, reply);
        } else if dial && (link.dialling || link.may_dial(Instant::now())) {
            link.wait(protocol, reply);
            if !link.dialling {
                self.dial(to).await;
            }
        } else {
            let _ = reply.send(Err(io::ErrorKind::NotConnected.into()));
        }
    }

    async fn note(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Streams(arrived)) => self.take_stream(arrived),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.note_connected(peer_id, connection_id, &endpoint).await;
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                self.note_closed(peer_id, connection_id, cause).await;
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.note_dial_failed(connection_id, peer_id, error).await;
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                debug!(address = %send_back_addr, %error, "an incoming connection came to nothing");
            }
            SwarmEvent::NewListenAddr { address, .. } => info!(%address, "listening for gossip and admission"),
            SwarmEvent::ListenerError { error, .. } => error!(%error, "cannot accept connections"),
            SwarmEvent::ListenerClosed { reason, .. } => error!(?reason, "no longer listening"),
            // The enum belongs to libp2p and may grow; the rest is of no use here.
            _ => {}
        }
    }

    async fn note_connected(&mut self, peer: PeerId, connection: ConnectionId, point: &ConnectedPoint) {
        self.seeds.remove(&connection);
        let (Some(node), Some(address)) = (node_id_of_peer(&peer), self.door.listen_address(&peer, point)) else {
            self.swarm.close_connection(connection);
            return;
        };
        let link = self.links.entry(node).or_insert_with(|| Link::new(self.shared.lane(node)));
        let first = link.connections.is_empty();
        if let Some(oldest) = link.connected(connection, address) {
            self.swarm.close_connection(oldest);
        }
        link.lane.note_connection();
        link.lane.connected.store(true, Ordering::Release);
        link.lane.wanted.store(false, Ordering::Release);
        for (protocol, reply) in link.take_waiting() {
            self.swarm.behaviour_mut().streams.open(peer, connection, protocol, reply);
        }
        lock(&self.shared.peers).insert(node, address);
        if first {
            let (lane, hub, counters) = (link.lane.clone(), self.own.0.clone(), self.shared.counters.clone());
            link.writer = Some(self.tasks.spawn(write_messages(node, lane, hub, counters)));
            debug!(%node, %address, dialled = point.is_dialer(), "connected");
            self.tell(TransportEvent::Connected(node, address)).await;
        }
    }

    async fn note_closed(&mut self, peer: PeerId, connection: ConnectionId, cause: Option<ConnectionError>) {
        let Some(node) = node_id_of_peer(&peer) else { return };
        let Some(link) = self.links.get_mut(&node) else { return };
        if !link.disconnected(connection) {
            return;
        }
        let idle = matches!(cause, Some(ConnectionError::KeepAliveTimeout)) || link.lane.unused_for() > IN_USE;
        match cause {
            Some(cause) => debug!(%node, %cause, idle, "disconnected"),
            None => debug!(%node, idle, "disconnected"),
        }
        self.end_link(node, idle).await;
    }

    /// Notes that no connection to a peer is left, and tells why.
    async fn end_link(&mut self, node: NodeId, planned: bool) {
        let Some(link) = self.links.get_mut(&node) else { return };
        if let Some(writer) = link.writer.take() {
            writer.abort();
        }
        link.lane.connected.store(false, Ordering::Release);
        lock(&self.shared.peers).remove(&node);
        let dial = !link.dialling && link.may_dial(Instant::now()) && self.addresses.contains_key(&node);
        if planned {
            self.tell(TransportEvent::Closed(node)).await;
            return;
        }
        self.tell(TransportEvent::Lost(node)).await;
        if dial {
            // Dialling at once tells whether the process is gone or only the connection.
            self.dial(node).await;
        }
    }

    async fn note_dial_failed(&mut self, connection: ConnectionId, peer: Option<PeerId>, error: DialError) {
        if let Some(address) = self.seeds.remove(&connection) {
            if !matches!(error, DialError::LocalPeerId { .. }) {
                self.tell(TransportEvent::SeedFailed { address, reason: reason_of(&error) }).await;
            }
            return;
        }
        let Some(node) = peer.and_then(|peer| node_id_of_peer(&peer)) else { return };
        self.note_unreachable(node, &error).await;
    }

    async fn note_unreachable(&mut self, node: NodeId, error: &DialError) {
        let Some(link) = self.links.get_mut(&node) else { return };
        if matches!(error, DialError::DialPeerConditionFalse(_)) {
            // Another dial of the same peer is under way and will be heard of.
            return;
        }
        if !link.connections.is_empty() {
            link.dialling = false;
            return;
        }
        link.dial_failed(Instant::now());
        link.lane.wanted.store(false, Ordering::Release);
        Counters::add(&self.shared.counters.dropped_messages, link.lane.clear());
        let refused = is_refusal(error);
        debug!(%node, refused, reason = reason_of(error), "cannot connect");
        self.tell(TransportEvent::DialFailed { to: node, refused }).await;
    }

    fn take_stream(&mut self, Arrived { peer, protocol, stream }: Arrived) {
        let Some(node) = node_id_of_peer(&peer) else { return };
        if protocol == BLOBS || protocol == TASKS {
            let server = if protocol == BLOBS { &self.shared.blobs } else { &self.shared.tasks };
            // Without a server, or with too many waiting, the stream closes by being dropped.
            if let Some(server) = lock(server).as_ref() {
                let _ = server.try_send((node, stream));
            }
            return;
        }
        debug_assert_eq!(protocol, MESSAGES);
        let Ok(slot) = self.readers.clone().try_acquire_owned() else { return };
        let lane: Arc<Lane> = self.shared.lane(node);
        let (events, counters) = (self.events.clone(), self.shared.counters.clone());
        self.tasks.spawn(async move {
            read_messages(node, stream, lane, events, counters).await;
            drop(slot);
        });
    }

    /// Tells the driver, who may be gone.
    async fn tell(&mut self, event: TransportEvent) {
        let _ = self.events.send(event).await;
    }
}

impl Behaviour {
    /// Puts the two behaviours together.
    pub(super) fn new(limits: libp2p::connection_limits::Behaviour) -> Self {
        Self { streams: Streams::default(), limits }
    }
}

/// Tells whether the failure shows that the node's process is not there: nobody listens, or another node does.
fn is_refusal(error: &DialError) -> bool {
    match error {
        DialError::WrongPeerId { .. } => true,
        DialError::Transport(failures) => {
            !failures.is_empty() && failures.iter().all(|(_, failure)| causes(failure).any(is_connection_refused))
        }
        DialError::LocalPeerId { .. }
        | DialError::NoAddresses
        | DialError::DialPeerConditionFalse(_)
        | DialError::Aborted
        | DialError::Denied { .. } => false,
    }
}

fn is_connection_refused(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Returns the innermost causes of a failed dial, in words.
fn reason_of(error: &DialError) -> String {
    match error {
        DialError::Transport(failures) => {
            let innermost = |failure| causes(failure).last().map(ToString::to_string);
            let reasons: Vec<String> = failures.iter().filter_map(|(_, failure)| innermost(failure)).collect();
            reasons.join(", ")
        }
        other => other.to_string(),
    }
}

/// Returns an error and all its sources.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}
