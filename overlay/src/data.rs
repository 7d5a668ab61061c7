//! The data thread: packets from the TUN to peers and from peers to the TUN, on a runtime of its own.
//!
//! One thread does it all, because a hop between threads costs more than carrying a packet. It ends when the sender of
//! routes is dropped.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn::{Connection, Endpoint};
use shoal_cluster::id::NodeId;
use shoal_cluster::plan::routes::Routes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::OverlayError;
use crate::forward::DropReason;
use crate::icmp::{self, Refusal};
use crate::packet::{self, Ends};
use crate::peers::{Identity, Peers, Receiver};
use crate::stats::Counters;
use crate::thread::Ready;
use crate::tun::{Tun, TunFile};
use crate::tunnel::{self, Close, Configs, MTU_MIN};

/// Packets read from the TUN before the connections get their turn to send.
const BATCH_PACKETS: usize = 64;
/// Longest packet that a TUN hands out, in bytes.
const PACKET_BYTES_MAX: usize = 1 << 16;
/// Packets are copied into pieces of memory of this size, in bytes, shared until the last of them has been sent.
const CHUNK_BYTES: usize = 1 << 16;
/// How long a stopping node waits for its peers to hear of it.
const FAREWELL: Duration = Duration::from_millis(300);
/// ICMP answers per [`ICMP_INTERVAL`] at most (RFC 4443 §2.4 asks for a limit).
const ICMP_BURST: u64 = 100;
const ICMP_INTERVAL: Duration = Duration::from_millis(100);
/// Pause after a failed read of the TUN, which is down or gone.
const TUN_RETRY: Duration = Duration::from_millis(100);

/// The host's side of the data path.
pub(crate) struct Host {
    pub(crate) tun: Tun,
    pub(crate) counters: Arc<Counters>,
    started: Instant,
    icmp_interval: AtomicU64,
    icmp_sent: AtomicU64,
}

impl Host {
    pub(crate) fn new(tun: Tun, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self {
            tun,
            counters,
            started: Instant::now(),
            icmp_interval: AtomicU64::new(0),
            icmp_sent: AtomicU64::new(0),
        })
    }

    /// Gives a packet to this host.
    fn deliver(&self, packet: &[u8]) -> Result<(), DropReason> {
        self.tun.write(packet).map_err(|_| DropReason::InterfaceFull)
    }

    /// Tells the sender of `packet` of its refusal, within the rate limit.
    fn refuse(&self, packet: &[u8], ends: &Ends, refusal: Refusal) {
        let interval = (self.started.elapsed().as_millis() / ICMP_INTERVAL.as_millis()) as u64;
        if self.icmp_interval.swap(interval, Ordering::Relaxed) != interval {
            self.icmp_sent.store(0, Ordering::Relaxed);
        }
        if self.icmp_sent.fetch_add(1, Ordering::Relaxed) >= ICMP_BURST {
            return;
        }
        if let Some(answer) = icmp::answer(packet, ends, refusal) {
            // An answer that does not fit is as lost as the packet that it is about.
            let _ = self.tun.write(&answer);
        }
    }
}

/// Takes the packets of one connection until it is lost.
pub(crate) async fn receive(host: Arc<Host>, peers: Arc<Peers>, peer: NodeId, connection: Connection) {
    while let Ok(datagram) = connection.read_datagram().await {
        match take(&host, &peers, &peer, &datagram) {
            Ok(()) => host.counters.received(datagram.len()),
            Err(reason) => host.counters.dropped(reason),
        }
    }
}

fn take(host: &Host, peers: &Peers, peer: &NodeId, datagram: &Bytes) -> Result<(), DropReason> {
    let ends = packet::parse(datagram)?;
    peers.table().inbound(peer, &ends)?;
    host.deliver(datagram)
}

/// What the data thread is made of.
pub(crate) struct Parts {
    pub(crate) identity: Identity,
    pub(crate) configs: Configs,
    pub(crate) socket: UdpSocket,
    pub(crate) tun: TunFile,
    pub(crate) counters: Arc<Counters>,
}

/// Carries packets until `routes` has no sender any more; begins when it has its first value.
pub(crate) async fn run(parts: Parts, mut routes: watch::Receiver<Option<Arc<Routes>>>, ready: Ready) {
    let Parts { identity, configs, socket, tun, counters } = parts;
    let begun = tun.into_async().and_then(|tun| Ok((tun, tunnel::endpoint(configs, socket)?)));
    let (tun, endpoint) = match begun {
        Ok(begun) => begun,
        Err(error) => return ready.say(Err(OverlayError::Thread(error))),
    };
    ready.say(Ok(()));
    let host = Host::new(tun, counters);
    let mut tasks = None;
    loop {
        let wanted = routes.borrow_and_update().clone();
        if let Some(wanted) = wanted {
            let tasks = tasks.get_or_insert_with(|| Tasks::start(&host, &endpoint, identity.clone(), &wanted));
            tasks.peers.set_routes(&wanted);
        }
        if routes.changed().await.is_err() {
            break;
        }
    }
    drop(tasks);
    endpoint.close(Close::Shutdown.code(), Close::Shutdown.text().as_bytes());
    // Peers that do not answer notice by their idle timeout.
    let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
}

/// The loops of the data path; aborted when dropped.
struct Tasks {
    peers: Arc<Peers>,
    accept: JoinHandle<()>,
    send: JoinHandle<()>,
}

impl Tasks {
    fn start(host: &Arc<Host>, endpoint: &Endpoint, identity: Identity, routes: &Routes) -> Self {
        let receiver: Receiver = {
            let host = Arc::clone(host);
            Box::new(move |peers, peer, connection| {
                tokio::spawn(receive(Arc::clone(&host), Arc::clone(peers), peer, connection));
            })
        };
        let peers = Peers::new(identity, endpoint.clone(), Arc::clone(&host.counters), routes, receiver);
        let accept = tokio::spawn(Arc::clone(&peers).accept());
        let send = tokio::spawn(send(Arc::clone(host), Arc::clone(&peers)));
        Self { peers, accept, send }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.accept.abort();
        self.send.abort();
        self.peers.stop();
    }
}

/// Reads the TUN for ever.
async fn send(host: Arc<Host>, peers: Arc<Peers>) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    loop {
        match send_batch(&host, &peers, &mut buffer, &mut chunk).await {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => {
                tracing::warn!(%error, "cannot read from the overlay's interface; trying on");
                sleep(TUN_RETRY).await;
            }
        }
    }
}

async fn send_batch(host: &Host, peers: &Peers, buffer: &mut [u8], chunk: &mut BytesMut) -> io::Result<()> {
    let mut ready = host.tun.readable().await?;
    for _ in 0..BATCH_PACKETS {
        match host.tun.read(buffer) {
            Ok(length) => match put(host, peers, &buffer[..length], chunk) {
                Ok(()) => host.counters.sent(length),
                Err(reason) => host.counters.dropped(reason),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready();
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Puts one packet of this host into the connection that leads to its destination.
fn put(host: &Host, peers: &Peers, packet: &[u8], chunk: &mut BytesMut) -> Result<(), DropReason> {
    let ends = packet::parse(packet)?;
    let peer = match peers.table().outbound(&ends) {
        Ok(peer) => peer,
        Err(reason) => {
            if matches!(reason, DropReason::NoTask | DropReason::NoRoute) {
                host.refuse(packet, &ends, Refusal::Unreachable);
            }
            return Err(reason);
        }
    };
    let connection = peers.connection(&peer).ok_or(DropReason::NotConnected)?;
    if connection.datagram_send_buffer_space() < packet.len() {
        return Err(DropReason::QueueFull);
    }
    if chunk.capacity() < packet.len() {
        chunk.reserve(CHUNK_BYTES.max(packet.len()));
    }
    chunk.extend_from_slice(packet);
    match connection.send_datagram(chunk.split().freeze()) {
        Ok(()) => Ok(()),
        Err(quinn::SendDatagramError::TooLarge) => {
            let fits = connection.max_datagram_size().map_or(0, |bytes| bytes as u16);
            host.refuse(packet, &ends, Refusal::TooBig { mtu: fits.max(MTU_MIN) });
            Err(DropReason::TooBig)
        }
        Err(
            quinn::SendDatagramError::UnsupportedByPeer
            | quinn::SendDatagramError::Disabled
            | quinn::SendDatagramError::ConnectionLost(_),
        ) => Err(DropReason::NotConnected),
    }
}
