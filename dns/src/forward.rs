//! Forwarding: questions about names outside the shoal are put to the host's resolvers, one after the other.
//!
//! Input: one question of a client. Output: the upstream's answer as it came, with the client's id, or `None` when no
//! upstream answered in time. A clean question is made rather than the client's bytes passed on, and an answer counts
//! only if it repeats the question and the random id. The caller bounds how many questions are under way.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Header, Message, OpCode, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::Upstreams;

/// How many resolvers of the host's list are used, as in glibc.
const UPSTREAMS_MAX: usize = 3;
/// Where resolvers answer.
const DNS_PORT: u16 = 53;
/// Bytes of `/etc/resolv.conf` that are read at most.
const RESOLV_CONF_BYTES_MAX: usize = 64 * 1024;
/// How long a list read from `/etc/resolv.conf` is used before the file is read again.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// A question to be forwarded.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Who asks.
    pub(crate) client: IpAddr,
    /// Name, type and class.
    pub(crate) query: Query,
    /// The id that the client waits for.
    pub(crate) id: u16,
    /// The client wants recursion (RD): repeated in the answers that we make up.
    pub(crate) recursion_desired: bool,
    /// The client forbids to validate (CD).
    pub(crate) checking_disabled: bool,
    /// The client's wishes by EDNS: bytes it takes over UDP, and whether it wants DNSSEC records.
    pub(crate) edns: Option<(u16, bool)>,
    /// The client asks over TCP, so that a long answer reaches it.
    pub(crate) over_tcp: bool,
}

impl Question {
    /// Returns an answer without records that we make up ourselves; `truncated` tells the client to ask over TCP.
    pub(crate) fn answer(&self, code: ResponseCode, truncated: bool) -> Vec<u8> {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.response_code = code;
        message.metadata.truncation = truncated;
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.add_query(self.query.clone());
        if let Some((payload, dnssec)) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload).set_version(0).set_dnssec_ok(dnssec);
            message.set_edns(edns);
        }
        message.to_vec().unwrap_or_default()
    }
}

/// Puts questions to the upstream resolvers.
#[derive(Debug)]
pub(crate) struct Forwarder {
    upstreams: Upstreams,
    resolv_conf: PathBuf,
    attempt_timeout: Duration,
    read: Mutex<Option<(Instant, Arc<[SocketAddr]>)>>,
    /// The upstreams of clients that have their own.
    clients: Mutex<BTreeMap<IpAddr, Arc<[SocketAddr]>>>,
}

impl Forwarder {
    /// Makes a forwarder that gives each upstream `attempt_timeout` to answer.
    pub(crate) fn new(upstreams: Upstreams, resolv_conf: PathBuf, attempt_timeout: Duration) -> Self {
        Self { upstreams, resolv_conf, attempt_timeout, read: Mutex::new(None), clients: Mutex::default() }
    }

    /// Puts the questions of this client to these upstreams; to those of all if there are none.
    pub(crate) fn set_client(&self, client: IpAddr, upstreams: &[IpAddr]) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        match upstreams {
            [] => clients.remove(&client),
            upstreams => clients.insert(client, upstreams.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT)).collect()),
        };
    }

    /// Forgets what was read of the host's list, so that the next question reads it again.
    pub(crate) fn reload(&self) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns the answer of the first upstream that has one. `own` are our own addresses, which are never asked.
    /// Takes at most the time for one attempt per upstream.
    pub(crate) async fn forward(&self, question: &Question, own: &[SocketAddr]) -> Option<Vec<u8>> {
        let mut second_best = None;
        let upstreams = self.upstreams(question.client);
        for upstream in upstreams.iter().filter(|upstream| !own.contains(upstream)).take(UPSTREAMS_MAX) {
            let Some(answer) = self.attempt(question, *upstream).await else { continue };
            match answer.code {
                ResponseCode::ServFail | ResponseCode::Refused => second_best = second_best.or(Some(answer.bytes)),
                _ => return Some(answer.bytes),
            }
        }
        second_best
    }

    /// Asks one upstream, over TCP if the client did, else over UDP. TCP refused by the upstream falls back to UDP.
    async fn attempt(&self, question: &Question, upstream: SocketAddr) -> Option<Reply> {
        let asked = Asked::new(question)?;
        if question.over_tcp
            && let Ok(Ok(reply)) = timeout(self.attempt_timeout, asked.over_tcp(upstream)).await
        {
            return Some(reply);
        }
        match timeout(self.attempt_timeout, asked.over_udp(upstream)).await {
            Ok(Ok(reply)) => Some(reply),
            Ok(Err(error)) => {
                tracing::debug!(%upstream, %error, "resolver of the host cannot be asked");
                None
            }
            Err(_) => {
                tracing::debug!(%upstream, "resolver of the host did not answer in time");
                None
            }
        }
    }

    /// Returns the upstreams in force for a client, reading the host's list again when the last reading is old.
    fn upstreams(&self, client: IpAddr) -> Arc<[SocketAddr]> {
        if let Some(own) = self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&client) {
            return own.clone();
        }
        match &self.upstreams {
            Upstreams::List(list) => list.as_slice().into(),
            Upstreams::System => {
                let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
                match read.as_ref() {
                    Some((at, list)) if at.elapsed() < RELOAD_INTERVAL => list.clone(),
                    _ => {
                        let list: Arc<[SocketAddr]> = self.read_resolv_conf().into();
                        *read = Some((Instant::now(), list.clone()));
                        list
                    }
                }
            }
        }
    }

    fn read_resolv_conf(&self) -> Vec<SocketAddr> {
        match std::fs::read(&self.resolv_conf) {
            Ok(bytes) => nameservers(&String::from_utf8_lossy(&bytes[..bytes.len().min(RESOLV_CONF_BYTES_MAX)])),
            Err(error) => {
                tracing::warn!(path = %self.resolv_conf.display(), %error, "no resolvers of the host: names outside the shoal fail");
                Vec::new()
            }
        }
    }
}

/// A question as it was put to an upstream.
struct Asked {
    bytes: Vec<u8>,
    query: Query,
    id: u16,
    client_id: u16,
}

/// An upstream's answer, with the client's id.
struct Reply {
    bytes: Vec<u8>,
    code: ResponseCode,
}

impl Asked {
    fn new(question: &Question) -> Option<Self> {
        let id = RandomState::new().build_hasher().finish() as u16;
        let mut message = Message::query();
        message.metadata.id = id;
        message.metadata.recursion_desired = true;
        message.metadata.checking_disabled = question.checking_disabled;
        message.add_query(question.query.clone());
        if let Some((payload, dnssec)) = question.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload).set_version(0).set_dnssec_ok(dnssec);
            message.set_edns(edns);
        }
        let bytes = message.to_vec().ok()?;
        Some(Self { bytes, query: question.query.clone(), id, client_id: question.id })
    }

    async fn over_udp(&self, upstream: SocketAddr) -> std::io::Result<Reply> {
        let any: IpAddr = if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(upstream).await?;
        socket.send(&self.bytes).await?;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if let Some(reply) = self.reply(&buffer[..length]) {
                return Ok(reply);
            }
        }
    }

    async fn over_tcp(&self, upstream: SocketAddr) -> std::io::Result<Reply> {
        let mut stream = TcpStream::connect(upstream).await?;
        let length = u16::try_from(self.bytes.len()).map_err(std::io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), self.bytes.as_slice()].concat()).await?;
        let length = stream.read_u16().await?;
        let mut buffer = vec![0; length.into()];
        stream.read_exact(&mut buffer).await?;
        self.reply(&buffer).ok_or_else(|| std::io::Error::other("the answer is not to the question"))
    }

    /// Returns the reply if these bytes answer this question, with the client's id put in.
    fn reply(&self, bytes: &[u8]) -> Option<Reply> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).ok()?;
        let is_reply = bytes[2] & 0x80 != 0 && header.metadata.id == self.id && header.counts.queries == 1;
        let query = Query::read(&mut decoder).ok()?;
        let same = query.name == self.query.name
            && query.query_type == self.query.query_type
            && query.query_class == self.query.query_class;
        if !is_reply || !same {
            return None;
        }
        let mut bytes = bytes.to_vec();
        bytes[..2].copy_from_slice(&self.client_id.to_be_bytes());
        Some(Reply { bytes, code: header.metadata.response_code })
    }
}

/// Returns the resolvers that a `resolv.conf` names, in its order. Lines that are not understood are passed over.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()?.parse::<IpAddr>().ok()
    };
    text.lines().filter_map(address).map(|address| SocketAddr::new(address, 53)).take(UPSTREAMS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_list_is_read_in_its_order_and_the_rest_passed_over() {
        let text = "# comment\nsearch example.com\nnameserver 192.0.2.1\n  nameserver\t2001:db8::1 # two\nnameserver nonsense\n\
                    nameserver\noptions ndots:2\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"].map(|text| text.parse().expect("address"));
        assert_eq!(nameservers(text), expected);
        assert!(nameservers("").is_empty());
    }
}
