//! A link: what the hub remembers of one peer, and when it may be dialled again.
//!
//! Pure: time is an argument. States: connected (connections not empty), dialling, waiting until `not_before`, idle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::StreamProtocol;
use libp2p::swarm::ConnectionId;
use tokio::task::AbortHandle;

use super::message::Lane;
use super::streams::Reply;

/// Pause after the first failed dial; doubled by each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest pause. Whether a silent member is tried at all is for membership to say, so this only stops storms.
const BACKOFF_MOST: Duration = Duration::from_secs(3);
/// Streams that wait for one connection to come up.
const WAITING_MAX: usize = 32;

/// One peer.
pub(super) struct Link {
    pub(super) lane: Arc<Lane>,
    /// Established connections, newest last, with the peer's listen address. Two after dials from both ends.
    pub(super) connections: Vec<(ConnectionId, SocketAddr)>,
    pub(super) writer: Option<AbortHandle>,
    pub(super) dialling: bool,
    failures: u32,
    not_before: Option<Instant>,
    waiting: Vec<(StreamProtocol, Reply)>,
}

impl Link {
    pub(super) fn new(lane: Arc<Lane>) -> Self {
        Self {
            lane,
            connections: Vec::new(),
            writer: None,
            dialling: false,
            failures: 0,
            not_before: None,
            waiting: Vec::new(),
        }
    }

    /// Tells whether nothing is known of this peer that must be kept.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.connections.is_empty() && !self.dialling && self.may_dial(now)
    }

    /// Tells whether the pause after the last failed dial is over.
    pub(super) fn may_dial(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    /// Notes a failed dial; the next may not come before a pause.
    pub(super) fn dial_failed(&mut self, now: Instant) {
        self.dialling = false;
        let pause = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(10)).min(BACKOFF_MOST);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause);
        self.waiting.clear();
    }

    /// Notes a connection; returns the oldest if there is now one too many, to be closed.
    pub(super) fn connected(&mut self, connection: ConnectionId, address: SocketAddr) -> Option<ConnectionId> {
        self.dialling = false;
        self.failures = 0;
        self.not_before = None;
        self.connections.push((connection, address));
        if self.connections.len() > 2 { Some(self.connections.remove(0).0) } else { None }
    }

    /// Notes the end of a connection and tells whether it was the last. One that we closed ourselves was given up
    /// before and never is.
    pub(super) fn disconnected(&mut self, connection: ConnectionId) -> bool {
        let before = self.connections.len();
        self.connections.retain(|(id, _)| *id != connection);
        self.connections.len() < before && self.connections.is_empty()
    }

    /// Keeps a request for a stream until a connection is up. One too many is dropped, and its reply with it.
    pub(super) fn wait(&mut self, protocol: StreamProtocol, reply: Reply) {
        self.waiting.retain(|(_, reply)| !reply.is_closed());
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push((protocol, reply));
        }
    }

    /// Takes the requests that waited.
    pub(super) fn take_waiting(&mut self) -> Vec<(StreamProtocol, Reply)> {
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_between_dials_grow_to_a_bound_and_end_with_a_connection() {
        let mut link = Link::new(Arc::new(Lane::new()));
        let now = Instant::now();
        assert!(link.may_dial(now));
        link.dial_failed(now);
        assert!(!link.may_dial(now));
        assert!(link.may_dial(now + BACKOFF_FIRST));
        for _ in 0..100 {
            link.dial_failed(now);
        }
        assert!(!link.may_dial(now + BACKOFF_MOST / 2));
        assert!(link.may_dial(now + BACKOFF_MOST));
        link.connected(ConnectionId::new_unchecked(1), SocketAddr::from(([127, 0, 0, 1], 1)));
        assert!(link.may_dial(now));
    }

    #[test]
    fn a_third_connection_replaces_the_oldest() {
        let mut link = Link::new(Arc::new(Lane::new()));
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let ids = [1, 2, 3].map(ConnectionId::new_unchecked);
        assert_eq!(link.connected(ids[0], address), None);
        assert_eq!(link.connected(ids[1], address), None);
        assert_eq!(link.connected(ids[2], address), Some(ids[0]));
        assert!(!link.disconnected(ids[0]), "it was given up");
        assert!(!link.disconnected(ids[1]));
        assert!(link.disconnected(ids[2]));
        assert!(!link.disconnected(ids[2]), "the last ends once");
    }
}
