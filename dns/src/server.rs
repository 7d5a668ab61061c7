//! The sockets: loops of our own over UDP and TCP that drive hickory-server's request and handler types.
//!
//! Input: datagrams and streams. Output: answers. hickory's own loops are not used because (0.26.3) they answer
//! malformed packets that are themselves answers, reserve memory by a count that a stranger writes, cap no
//! connections and make a task for every packet. Here a question about the shoal is answered in the loop that read
//! it; only forwarded ones get a task of their own, bounded in number.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable};
use hickory_server::net::runtime::TokioTime;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::forward::{Forwarder, Question};
use crate::handler::{Decision, Reply, ZoneHandler, udp_bytes_max};

/// Bytes of a question at most; longer datagrams are cut by the kernel and then malformed.
const QUESTION_BYTES_MAX: usize = 4096;
/// Bytes of a DNS header.
const HEADER_BYTES: usize = 12;
/// TCP connections at once, of all clients and of one.
const CONNECTIONS_MAX: usize = 128;
const CONNECTIONS_PER_CLIENT_MAX: usize = 32;
/// How long a TCP client may be silent, or keep us from writing.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// What all listeners share.
pub(crate) struct Shared {
    pub(crate) handler: ZoneHandler,
    pub(crate) forwarder: Forwarder,
    /// One permit for each question that may be with the host's resolvers.
    pub(crate) forwards: Arc<Semaphore>,
    /// The addresses on which we listen: never asked as upstreams.
    pub(crate) own: Mutex<Vec<SocketAddr>>,
    connections: Mutex<HashMap<IpAddr, usize>>,
}

/// What came of some bytes.
enum Outcome {
    /// Nothing is sent: not a question.
    Silence,
    /// This is sent.
    Answer(Vec<u8>),
    /// The host's resolvers are asked first.
    Forward(Box<Forward>),
}

/// A question on its way to the host's resolvers.
struct Forward {
    question: Question,
    /// The bytes that the client takes at most.
    bytes_max: usize,
    permit: OwnedSemaphorePermit,
}

impl Shared {
    /// Makes what listeners share; at most `forwards_max` questions are forwarded at once.
    pub(crate) fn new(forwarder: Forwarder, forwards_max: usize) -> Self {
        Self {
            handler: ZoneHandler::default(),
            forwarder,
            forwards: Arc::new(Semaphore::new(forwards_max)),
            own: Mutex::default(),
            connections: Mutex::default(),
        }
    }

    /// Decides on some bytes from a client.
    async fn take(&self, bytes: &[u8], from: SocketAddr, protocol: Protocol) -> Outcome {
        if bytes.len() < HEADER_BYTES || bytes[2] & 0x80 != 0 || from.port() == 0 {
            return Outcome::Silence;
        }
        if let Some(code) = refusal(bytes) {
            return bare_answer(bytes, code);
        }
        let Ok(request) = Request::from_bytes(bytes.to_vec(), from, protocol) else {
            return bare_answer(bytes, ResponseCode::FormErr);
        };
        if let Decision::Forward = self.handler.decide(&request)
            && let Some(question) = question(&request)
            && let Ok(permit) = self.forwards.clone().try_acquire_owned()
        {
            let bytes_max = if question.over_tcp { u16::MAX } else { udp_bytes_max(&request) }.into();
            return Outcome::Forward(Box::new(Forward { question, bytes_max, permit }));
        }
        let reply = Reply::default();
        self.handler.handle_request::<_, TokioTime>(&request, reply.clone()).await;
        match reply.take() {
            bytes if bytes.is_empty() => Outcome::Silence,
            bytes => Outcome::Answer(bytes),
        }
    }

    /// Asks the host's resolvers and returns what is to be sent to the client: SERVFAIL if none answered.
    async fn forward(&self, forward: Forward) -> Vec<u8> {
        let Forward { question, bytes_max, permit } = forward;
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = self.forwarder.forward(&question, &own).await;
        drop(permit);
        match answer {
            Some(bytes) if bytes.len() <= bytes_max => bytes,
            Some(_) => question.answer(ResponseCode::NoError, true),
            None => question.answer(ResponseCode::ServFail, false),
        }
    }

    /// Counts one more connection from `client` unless there are too many.
    fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Connection> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = connections.values().sum();
        let count = connections.entry(client).or_default();
        if all >= CONNECTIONS_MAX || *count >= CONNECTIONS_PER_CLIENT_MAX {
            if *count == 0 {
                connections.remove(&client);
            }
            return None;
        }
        *count += 1;
        Some(Connection { shared: self.clone(), client })
    }
}

/// An admitted TCP connection; counted until dropped.
struct Connection {
    shared: Arc<Shared>,
    client: IpAddr,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connections.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.client);
            }
        }
    }
}

/// Answers datagrams until dropped, which also ends what it forwards, so that the port is free at once.
pub(crate) async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    let mut forwards = JoinSet::new();
    loop {
        while forwards.try_join_next().is_some() {}
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "receiving a question failed");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        match shared.take(&buffer[..length], from, Protocol::Udp).await {
            Outcome::Silence => {}
            Outcome::Answer(bytes) => send(&socket, &bytes, from).await,
            Outcome::Forward(forward) => {
                let (shared, socket) = (shared.clone(), socket.clone());
                forwards.spawn(async move { send(&socket, &shared.forward(*forward).await, from).await });
            }
        }
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, to).await {
        tracing::debug!(%error, %to, "sending an answer failed");
    }
}

/// Accepts and answers TCP connections until dropped; those beyond the limits are closed at once.
pub(crate) async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                if let Some(connection) = shared.admit(from.ip()) {
                    connections.spawn(serve_connection(stream, from, connection));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers the questions of one connection until it ends, is silent too long, or sends what is no question.
async fn serve_connection(stream: TcpStream, from: SocketAddr, connection: Connection) {
    let connection = Arc::new(connection);
    let shared = &connection.shared;
    let (mut reader, writer) = stream.into_split();
    let writer = Arc::new(tokio::sync::Mutex::new(writer));
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    loop {
        let Ok(Ok(length)) = timeout(TCP_IDLE, reader.read_u16()).await else { return };
        let Some(bytes) = buffer.get_mut(..length.into()) else { return };
        let Ok(Ok(_)) = timeout(TCP_IDLE, reader.read_exact(bytes)).await else { return };
        match shared.take(bytes, from, Protocol::Tcp).await {
            Outcome::Silence => return,
            Outcome::Answer(bytes) => {
                if write(&writer, &bytes).await.is_err() {
                    return;
                }
            }
            Outcome::Forward(forward) => {
                let (connection, writer) = (connection.clone(), writer.clone());
                tokio::spawn(async move {
                    let bytes = connection.shared.forward(*forward).await;
                    let _ = write(&writer, &bytes).await;
                });
            }
        }
    }
}

/// Writes one message with its length before it.
async fn write(writer: &tokio::sync::Mutex<OwnedWriteHalf>, bytes: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    let framed = [&length.to_be_bytes(), bytes].concat();
    let mut writer = writer.lock().await;
    timeout(TCP_IDLE, writer.write_all(&framed)).await.map_err(std::io::Error::other)?
}

/// Returns why a packet is refused by its header alone, before anything in it is believed.
fn refusal(bytes: &[u8]) -> Option<ResponseCode> {
    let questions = u16::from_be_bytes([bytes[4], bytes[5]]);
    match OpCode::from_u8(bytes[2] >> 3 & 0x0f) {
        OpCode::Query if questions == 1 => None,
        OpCode::Query => Some(ResponseCode::FormErr),
        OpCode::Notify | OpCode::Update => Some(ResponseCode::Refused),
        _ => Some(ResponseCode::NotImp),
    }
}

/// Returns an answer of a header alone, to a packet of which only the header was understood.
fn bare_answer(bytes: &[u8], code: ResponseCode) -> Outcome {
    let Ok(header) = Header::read(&mut BinDecoder::new(bytes)) else { return Outcome::Silence };
    let mut metadata = Metadata::response_from_request(&header.metadata);
    metadata.response_code = code;
    match (Header { metadata, counts: HeaderCounts::default() }).to_bytes() {
        Ok(bytes) => Outcome::Answer(bytes),
        Err(_) => Outcome::Silence,
    }
}

/// Returns the question of a request, to be put to others.
fn question(request: &Request) -> Option<Question> {
    let query = request.queries.queries().first()?.original().clone();
    Some(Question {
        client: request.src().ip().to_canonical(),
        query,
        id: request.metadata.id,
        recursion_desired: request.metadata.recursion_desired,
        checking_disabled: request.metadata.checking_disabled,
        edns: request.edns.as_ref().map(|edns| (udp_bytes_max(request), edns.flags().dnssec_ok)),
        over_tcp: request.protocol() == Protocol::Tcp,
    })
}
