//! The overlay: carries packets between the tasks of all nodes by a route table.
//!
//! Input: [`Routes`] and the tasks of this node. Output: one TUN, one routed veth per task, and one QUIC connection per
//! peer, on which every packet travels as one datagram under mutual TLS. Knows nothing of services, planes or images.
//! See `docs/architecture.md#overlay` and `docs/protocol.md#tunnel`.

mod data;
pub mod forward;
pub mod icmp;
mod link;
mod links;
mod netns;
pub mod packet;
mod peers;
mod stats;
mod sysctl;
mod thread;
mod tun;
mod tunnel;
mod veth;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use shoal_cluster::id::NodeId;
use shoal_cluster::plan::addresses::Addresses;
use shoal_cluster::plan::routes::Routes;
use tokio::sync::watch;

use crate::data::Parts;
use crate::links::Links;
use crate::peers::Identity;
use crate::stats::Counters;
use crate::thread::Joined;
use crate::tun::TunFile;
use crate::tunnel::Configs;

pub use crate::forward::DropReason;
pub use crate::link::LinkError;
pub use crate::stats::Stats;
pub use crate::tun::TunError;
pub use crate::tunnel::{MTU_MAX, MTU_MIN, TunnelError};

/// Tells which node a verified certificate chain, leaf first, belongs to.
pub type Identify = dyn Fn(&[CertificateDer<'_>]) -> Option<NodeId> + Send + Sync;

/// The UDP port of the tunnel where none is chosen.
pub const PORT: u16 = 7946;
/// The name of the TUN where none is chosen.
pub const INTERFACE: &str = "shoal0";
/// The inner MTU where none is chosen, in bytes. With QUIC, UDP and IPv6 around it, it fits a path of 1436 bytes, as
/// clouds and PPPoE have; on narrower paths, down to 1366, senders are told the smaller size that fits.
pub const MTU: u16 = 1350;

/// How one node's overlay is set up.
#[derive(Clone)]
pub struct OverlayConfig {
    /// This node.
    pub node: NodeId,
    /// Where the tunnel listens; port 0 takes any free one. Default 0.0.0.0, port [`PORT`].
    pub listen: SocketAddr,
    /// Name of the TUN, unique in the network namespace, 1 to 15 characters. Default [`INTERFACE`].
    pub interface: String,
    /// Longest inner packet in bytes, [`MTU_MIN`] to [`MTU_MAX`], the same on all nodes. Default [`MTU`].
    pub mtu: u16,
    /// TLS for connections that peers make: demands a certificate of the shoal's CA. ALPN is set by the caller.
    pub server: Arc<rustls::ServerConfig>,
    /// TLS for connections to peers: shows our certificate, demands one of the shoal's CA. ALPN as in `server`.
    pub client: Arc<rustls::ClientConfig>,
    /// The DNS name that every leaf certificate carries.
    pub server_name: String,
    /// Which node a verified chain belongs to.
    pub identify: Arc<Identify>,
}

/// Why the overlay did not start. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The configuration asks for an MTU that cannot be had.
    #[error("overlay mtu {mtu} is out of range: choose {MTU_MIN} to {MTU_MAX}")]
    Mtu {
        /// What was asked for.
        mtu: u16,
    },
    /// The TUN could not be made.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The tunnel's socket could not be had.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// The TUN could not be set up.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// No thread or runtime could be had.
    #[error("cannot start a thread of the overlay: the system is out of threads, memory or file descriptors")]
    Thread(#[source] io::Error),
}

/// The overlay of one node, in the network namespace of the thread that started it.
///
/// Dropped, it stops: the TUN goes, peers are told. The links of tasks stay, as their tasks do.
#[derive(Debug)]
pub struct Overlay {
    listen: SocketAddr,
    counters: Arc<Counters>,
    links: Links,
    data: Data,
}

impl Overlay {
    /// Makes the TUN, opens the tunnel's socket and starts carrying; there is nobody to carry to before
    /// [`Overlay::set_routes`]. Takes some milliseconds, and needs no runtime.
    pub fn start(config: OverlayConfig) -> Result<Self, OverlayError> {
        if !(MTU_MIN..=MTU_MAX).contains(&config.mtu) {
            return Err(OverlayError::Mtu { mtu: config.mtu });
        }
        let configs = Configs::new(Arc::clone(&config.client), Arc::clone(&config.server), config.mtu)?;
        let socket = tunnel::bind(config.listen)?;
        let listen = socket.local_addr().map_err(|source| TunnelError::Io { address: config.listen, source })?;
        let tun = TunFile::open(&config.interface)?;
        let links = Links::start(config.interface, config.mtu)?;
        let counters = Arc::new(Counters::default());
        let identity = Identity {
            node: config.node,
            session: session(),
            server_name: config.server_name,
            identify: config.identify,
        };
        let data = Data::start(Parts { identity, configs, socket, tun, counters: Arc::clone(&counters) })?;
        Ok(Self { listen, counters, links, data })
    }

    /// Returns where the tunnel listens; the port is the real one if 0 was asked for.
    pub fn listen_address(&self) -> SocketAddr {
        self.listen
    }

    /// Makes addresses, routes and connections those of `routes`. Level-based: what is so already stays, and the next call
    /// tries again what failed, or sets again what others have removed; call it every few seconds. When it returns, the node's own addresses can be listened on;
    /// connections come up later.
    pub async fn set_routes(&self, routes: Routes) -> Result<(), LinkError> {
        let own = routes.own;
        self.data.set_routes(routes);
        self.links.set_own(own).await
    }

    /// Ensures the link of the task `task_key`, whose process is `pid`: its `eth0` with `addresses` and default routes.
    ///
    /// Calling it again, also after a restart of the node, repairs what is missing and leaves the rest. A task that
    /// fails half-way is left as it is: call again or [`Overlay::detach`].
    pub async fn attach(&self, task_key: &str, pid: i32, addresses: Addresses) -> Result<(), LinkError> {
        self.links.attach(task_key, pid, addresses).await
    }

    /// Removes the link of the task `task_key`; there need not be one, since a link dies with its network namespace.
    pub async fn detach(&self, task_key: &str) -> Result<(), LinkError> {
        self.links.detach(task_key).await
    }

    /// Removes the links of all tasks but `task_keys`: what earlier runs of this node have left behind.
    pub async fn retain(&self, task_keys: BTreeSet<String>) -> Result<(), LinkError> {
        self.links.retain(task_keys).await
    }

    /// Returns what was carried and dropped so far, and who is connected.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }
}

/// The handle of the data thread. Dropped, it stops the thread and waits for it, some 300 ms at most.
#[derive(Debug)]
struct Data {
    routes: Option<watch::Sender<Option<Arc<Routes>>>>,
    /// Waited for after the routes are gone.
    _thread: Joined,
}

impl Data {
    fn start(parts: Parts) -> Result<Self, OverlayError> {
        let (routes, wanted) = watch::channel(None);
        let thread = thread::start("shoal-overlay", move |ready| data::run(parts, wanted, ready))?;
        Ok(Self { routes: Some(routes), _thread: thread })
    }

    fn set_routes(&self, routes: Routes) {
        if let Some(sender) = &self.routes {
            sender.send_if_modified(|present| {
                let differ = present.as_deref() != Some(&routes);
                if differ {
                    *present = Some(Arc::new(routes));
                }
                differ
            });
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        self.routes = None;
    }
}

/// Returns a number that is another at each start, so that peers notice a restart.
fn session() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
