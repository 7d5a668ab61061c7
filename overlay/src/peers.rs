//! Connections to peers: who dials, which of two connections stays, and what happens when one is lost.
//!
//! Input: routes, incoming handshakes. Output: at most one connection per peer, up only after the hello. The node with
//! the lower id dials at once, the other after a grace, so a restarted node is heard whichever it is. Of two connections
//! with one session of the peer, the one that the lower id dialled stays; a peer's new session replaces the old at once.
//! See `docs/protocol.md#tunnel`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, Endpoint};
use rustls::pki_types::CertificateDer;
use shoal_cluster::id::NodeId;
use shoal_cluster::plan::routes::Routes;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::Identify;
use crate::forward::Table;
use crate::stats::Counters;
use crate::tunnel::{self, Close, HANDSHAKES_MAX, HelloError};

/// Pause after the first failed dial; doubled each time up to [`REDIAL_MAX`].
const REDIAL_MIN: Duration = Duration::from_millis(200);
/// Longest pause between dials.
const REDIAL_MAX: Duration = Duration::from_secs(5);
/// How long the node with the higher id waits for the other to dial.
const GRACE: Duration = Duration::from_millis(500);
/// Longest time for a handshake with its hello.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that lived this long was a good one: its loss is followed by a quick redial.
const SETTLED: Duration = Duration::from_secs(5);

const _: () = assert!(REDIAL_MIN.as_millis() < REDIAL_MAX.as_millis());
const _: () = assert!(GRACE.as_millis() < HANDSHAKE_TIMEOUT.as_millis());

/// Starts taking the packets that arrive on a connection, until it is lost.
pub(crate) type Receiver = Box<dyn Fn(&Arc<Peers>, NodeId, Connection) + Send + Sync>;

/// Who this node is, and how it knows others.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    /// Another number at each start of the node.
    pub(crate) session: u64,
    /// The DNS name in every leaf certificate.
    pub(crate) server_name: String,
    pub(crate) identify: Arc<Identify>,
}

/// All connections of this node.
pub(crate) struct Peers {
    identity: Identity,
    endpoint: Endpoint,
    counters: Arc<Counters>,
    receiver: Receiver,
    state: Mutex<State>,
    handshakes: Arc<Semaphore>,
}

struct State {
    table: Arc<Table>,
    peers: BTreeMap<NodeId, Peer>,
}

/// A node in the routes.
struct Peer {
    endpoint: SocketAddr,
    /// Wakes the keeper: there is a new endpoint, or a connection.
    changed: Arc<Notify>,
    keeper: JoinHandle<()>,
    up: Option<Up>,
}

/// A connection after its hello.
struct Up {
    connection: Connection,
    claim: Claim,
    since: Instant,
}

/// What decides which of two connections to one peer stays.
#[derive(Clone, Copy, Debug)]
struct Claim {
    /// The peer's session, from its hello.
    session: u64,
    dialled_by_lower: bool,
}

/// Why a dial came to nothing.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("cannot dial: {0}")]
    Connect(#[from] quinn::ConnectError),
    #[error("handshake failed: {0}")]
    Handshake(#[from] quinn::ConnectionError),
    #[error("no answer within {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
    #[error("the certificate there is another node's: {found:?}")]
    WrongNode { found: Option<NodeId> },
    #[error(transparent)]
    Hello(#[from] HelloError),
}

impl Peers {
    /// Makes the connections of this node on `endpoint`; `routes` are the first ones, but nothing is dialled yet.
    pub(crate) fn new(
        identity: Identity,
        endpoint: Endpoint,
        counters: Arc<Counters>,
        routes: &Routes,
        receiver: Receiver,
    ) -> Arc<Self> {
        let state = State { table: Arc::new(Table::new(routes)), peers: BTreeMap::new() };
        Arc::new(Self {
            identity,
            endpoint,
            counters,
            receiver,
            state: Mutex::new(state),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        })
    }

    /// Returns the table in force.
    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.state().table)
    }

    /// Returns the connection to `peer`, if there is one.
    pub(crate) fn connection(&self, peer: &NodeId) -> Option<Connection> {
        self.state().peers.get(peer).and_then(|peer| peer.up.as_ref()).map(|up| up.connection.clone())
    }

    /// Makes the connections those that `routes` asks for. Level-based: calling again with the same does nothing.
    pub(crate) fn set_routes(self: &Arc<Self>, routes: &Routes) {
        let mut state = self.state();
        state.table = Arc::new(Table::new(routes));
        let gone: Vec<NodeId> = state.peers.keys().filter(|peer| !routes.peers.contains_key(peer)).copied().collect();
        for id in gone {
            if let Some(peer) = state.peers.remove(&id) {
                peer.keeper.abort();
                if let Some(up) = peer.up {
                    Close::NoRoute.close(&up.connection);
                }
                self.counters.set_connected(id, false);
            }
        }
        for (&id, route) in routes.peers.iter().filter(|(id, _)| **id != self.identity.node) {
            match state.peers.get_mut(&id) {
                Some(peer) if peer.endpoint == route.endpoint => {}
                Some(peer) => {
                    peer.endpoint = route.endpoint;
                    peer.changed.notify_one();
                }
                None => {
                    let changed = Arc::new(Notify::new());
                    let keeper = tokio::spawn(Arc::clone(self).keep(id, Arc::clone(&changed)));
                    state.peers.insert(id, Peer { endpoint: route.endpoint, changed, keeper, up: None });
                }
            }
        }
    }

    /// Stops dialling, for good.
    pub(crate) fn stop(&self) {
        for peer in self.state().peers.values() {
            peer.keeper.abort();
        }
    }

    /// Accepts connections until the endpoint is closed.
    pub(crate) async fn accept(self: Arc<Self>) {
        while let Some(incoming) = self.endpoint.accept().await {
            let Ok(permit) = Arc::clone(&self.handshakes).try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            let peers = Arc::clone(&self);
            tokio::spawn(async move {
                let from = incoming.remote_address();
                match timeout(HANDSHAKE_TIMEOUT, peers.admit(incoming)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%from, %error, "refused a tunnel connection"),
                    Err(_) => tracing::debug!(%from, "a tunnel handshake was not finished in time"),
                }
                drop(permit);
            });
        }
    }

    /// Takes one incoming connection through handshake, checks and hello.
    async fn admit(self: &Arc<Self>, incoming: quinn::Incoming) -> Result<(), DialError> {
        let connection = incoming.accept()?.await?;
        let Some(peer) = self.identity_of(&connection) else {
            Close::Identity.close(&connection);
            return Err(DialError::WrongNode { found: None });
        };
        if !self.state().peers.contains_key(&peer) {
            tracing::debug!(%peer, "refused a tunnel connection: the node is not in the routes");
            Close::NoRoute.close(&connection);
            return Ok(());
        }
        self.greet(peer, connection, peer < self.identity.node).await
    }

    /// Keeps a connection to `peer`: dials while there is none. Runs until the peer leaves the routes.
    async fn keep(self: Arc<Self>, peer: NodeId, changed: Arc<Notify>) {
        let mut pause = REDIAL_MIN;
        let mut warned = false;
        let grace = if self.identity.node > peer { GRACE } else { Duration::ZERO };
        while let Some(endpoint) = self.endpoint_of(&peer) {
            if let Some((connection, since)) = self.current(&peer) {
                let reason = connection.closed().await;
                if self.forget(&peer, &connection) {
                    tracing::info!(%peer, %reason, "lost the tunnel to a peer");
                }
                warned = false;
                pause = if since.elapsed() >= SETTLED { REDIAL_MIN } else { (pause * 2).min(REDIAL_MAX) };
                self.wait(&peer, endpoint, pause + grace, &changed).await;
                continue;
            }
            if !warned {
                self.wait(&peer, endpoint, grace, &changed).await;
            }
            if self.current(&peer).is_some() || self.endpoint_of(&peer) != Some(endpoint) {
                continue;
            }
            if let Err(error) = self.dial(peer, endpoint).await {
                if warned {
                    tracing::debug!(%peer, %endpoint, %error, "no tunnel to a peer yet");
                } else {
                    tracing::warn!(%peer, %endpoint, %error, "no tunnel to a peer; trying on");
                    warned = true;
                }
                self.wait(&peer, endpoint, pause, &changed).await;
                pause = (pause * 2).min(REDIAL_MAX);
            }
        }
    }

    /// Waits for `pause`, or until the peer has a connection or another endpoint.
    async fn wait(&self, peer: &NodeId, endpoint: SocketAddr, pause: Duration, changed: &Notify) {
        let settled = async {
            while self.current(peer).is_none() && self.endpoint_of(peer) == Some(endpoint) {
                changed.notified().await;
            }
        };
        // Running out of time is the usual end.
        let _ = timeout(pause, settled).await;
    }

    async fn dial(self: &Arc<Self>, peer: NodeId, endpoint: SocketAddr) -> Result<(), DialError> {
        let attempt = async {
            let connection = self.endpoint.connect(endpoint, &self.identity.server_name)?.await?;
            let found = self.identity_of(&connection);
            if found != Some(peer) {
                Close::Identity.close(&connection);
                return Err(DialError::WrongNode { found });
            }
            self.greet(peer, connection, self.identity.node < peer).await
        };
        timeout(HANDSHAKE_TIMEOUT, attempt).await.unwrap_or(Err(DialError::Timeout))
    }

    async fn greet(
        self: &Arc<Self>,
        peer: NodeId,
        connection: Connection,
        dialled_by_lower: bool,
    ) -> Result<(), DialError> {
        match tunnel::hello(&connection, self.identity.session).await {
            Ok(session) => {
                self.install(
                    peer,
                    Up { connection, claim: Claim { session, dialled_by_lower }, since: Instant::now() },
                );
                Ok(())
            }
            Err(error) => {
                Close::Hello.close(&connection);
                Err(error.into())
            }
        }
    }

    /// Takes a connection into use, or closes it for a better one.
    fn install(self: &Arc<Self>, id: NodeId, new: Up) {
        let mut state = self.state();
        let Some(peer) = state.peers.get_mut(&id) else {
            Close::NoRoute.close(&new.connection);
            return;
        };
        if let Some(old) = &peer.up {
            if old.connection.close_reason().is_none() && !replaces(new.claim, old.claim) {
                Close::Duplicate.close(&new.connection);
                return;
            }
            Close::Replaced.close(&old.connection);
        }
        let connection = new.connection.clone();
        tracing::info!(peer = %id, from = %connection.remote_address(), "the tunnel to a peer is up");
        peer.up = Some(new);
        peer.changed.notify_one();
        self.counters.set_connected(id, true);
        drop(state);
        (self.receiver)(self, id, connection);
    }

    /// Drops `connection` if it is the current one; tells whether it was.
    fn forget(&self, id: &NodeId, connection: &Connection) -> bool {
        let mut state = self.state();
        let Some(peer) = state.peers.get_mut(id) else { return false };
        let current = peer.up.as_ref().is_some_and(|up| up.connection.stable_id() == connection.stable_id());
        if current {
            peer.up = None;
            self.counters.set_connected(*id, false);
        }
        current
    }

    fn current(&self, peer: &NodeId) -> Option<(Connection, Instant)> {
        self.state().peers.get(peer).and_then(|peer| peer.up.as_ref()).map(|up| (up.connection.clone(), up.since))
    }

    fn endpoint_of(&self, peer: &NodeId) -> Option<SocketAddr> {
        self.state().peers.get(peer).map(|peer| peer.endpoint)
    }

    /// Returns the node that the verified certificate chain of the other side names.
    fn identity_of(&self, connection: &Connection) -> Option<NodeId> {
        let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        (self.identity.identify)(&chain)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole values behind: each field is replaced at once.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells whether a new connection replaces a live one to the same peer; both sides come to the same result.
fn replaces(new: Claim, old: Claim) -> bool {
    // Another session: the peer has restarted and knows nothing of the old connection. The same dialler: it would not
    // have dialled again had it not lost the old one.
    new.session != old.session || new.dialled_by_lower == old.dialled_by_lower || new.dialled_by_lower
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_LOWER: Claim = Claim { session: 1, dialled_by_lower: true };
    const BY_HIGHER: Claim = Claim { session: 1, dialled_by_lower: false };

    #[test]
    fn when_both_dial_at_once_the_lower_ones_connection_stays_in_whatever_order_they_come_up() {
        assert!(replaces(BY_LOWER, BY_HIGHER));
        assert!(!replaces(BY_HIGHER, BY_LOWER));
    }

    #[test]
    fn whoever_dials_again_has_lost_its_first_connection() {
        assert!(replaces(BY_LOWER, BY_LOWER));
        assert!(replaces(BY_HIGHER, BY_HIGHER));
    }

    #[test]
    fn a_restarted_peer_replaces_its_old_connection_whoever_dials() {
        for old in [BY_LOWER, BY_HIGHER] {
            for dialled_by_lower in [true, false] {
                assert!(replaces(Claim { session: 2, dialled_by_lower }, old));
            }
        }
    }
}
