//! The one behaviour of our libp2p swarm: opens streams for a protocol and reports those that peers open.
//!
//! Input: requests to open. Output: streams, ours through the reply of the request, theirs as [`Arrived`].

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll, Waker};

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, StreamUpgradeError,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use tokio::sync::oneshot;

/// Messages of the core, one stream in each direction.
pub(super) const MESSAGES: StreamProtocol = StreamProtocol::new("/shoal/message/1");
/// Blobs of images, one stream each.
pub(super) const BLOBS: StreamProtocol = StreamProtocol::new("/shoal/blob/1");
/// Logs, commands and questions about tasks, one stream each.
pub(super) const TASKS: StreamProtocol = StreamProtocol::new("/shoal/task/1");
/// Requests to open that wait in one connection at a time.
const WAITING_MAX: usize = 64;

/// Where the stream goes that was asked for.
pub(super) type Reply = oneshot::Sender<io::Result<Stream>>;

/// A stream that a peer opened.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) peer: PeerId,
    pub(super) protocol: StreamProtocol,
    pub(super) stream: Stream,
}

/// A request to open a stream on one connection.
#[derive(Debug)]
pub(super) struct Open {
    protocol: StreamProtocol,
    reply: Reply,
}

/// The behaviour.
#[derive(Default)]
pub(super) struct Streams {
    actions: VecDeque<ToSwarm<Arrived, Open>>,
    waker: Option<Waker>,
}

impl Streams {
    /// Opens a stream on this connection; the reply says how it went. A connection that is gone drops the reply.
    pub(super) fn open(&mut self, peer_id: PeerId, connection: ConnectionId, protocol: StreamProtocol, reply: Reply) {
        let handler = NotifyHandler::One(connection);
        self.actions.push_back(ToSwarm::NotifyHandler { peer_id, handler, event: Open { protocol, reply } });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Arrived;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        (protocol, stream): THandlerOutEvent<Self>,
    ) {
        self.actions.push_back(ToSwarm::GenerateEvent(Arrived { peer, protocol, stream }));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.actions.pop_front() {
            Some(action) => Poll::Ready(action),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The part of the behaviour that lives in one connection.
#[derive(Default)]
pub(super) struct Handler {
    requests: VecDeque<Open>,
    arrived: VecDeque<(StreamProtocol, Stream)>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = (StreamProtocol, Stream);
    type InboundProtocol = Protocols;
    type OutboundProtocol = Protocols;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Protocols, ()> {
        SubstreamProtocol::new(Protocols(vec![MESSAGES, BLOBS, TASKS]), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Protocols, Reply, (StreamProtocol, Stream)>> {
        if let Some(arrived) = self.arrived.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(arrived));
        }
        match self.requests.pop_front() {
            Some(Open { protocol, reply }) => {
                let protocol = SubstreamProtocol::new(Protocols(vec![protocol]), reply);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, request: Open) {
        // A request too many is dropped, and its reply with it, which the asker takes for a failure.
        if self.requests.len() < WAITING_MAX {
            self.requests.push_back(request);
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Protocols, Protocols, (), Reply>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol), ..
            }) => {
                self.arrived.push_back((protocol, stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (stream, _), info }) => {
                // Who asked may have given up; the stream then closes by being dropped.
                let _ = info.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => io::ErrorKind::TimedOut.into(),
                    StreamUpgradeError::NegotiationFailed => io::ErrorKind::Unsupported.into(),
                    StreamUpgradeError::Io(error) => error,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = info.send(Err(error));
            }
            // The enum belongs to libp2p and may grow; the rest is of no use here.
            _ => {}
        }
    }
}

/// Negotiates one of these protocols and hands the bare stream out.
#[derive(Clone, Debug)]
pub(super) struct Protocols(Vec<StreamProtocol>);

impl UpgradeInfo for Protocols {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Protocols {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for Protocols {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
