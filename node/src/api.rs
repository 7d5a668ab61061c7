//! The API: the Docker Engine API on a Unix socket, and what Docker has no word for below `/shoal/`.
//!
//! Input: requests of local clients, whose bytes are hostile, and the node through a [`NodeHandle`]. Output: answers
//! made from one snapshot of the views, and commands for the core. What Docker's engine has and shoal does not is
//! listed in [`not_here`], and fields of specs that it does not have in [`spec`]: both are refused by their names.
//! Knows nothing of transport and disk, and of
//! containers only whether one could be made as a spec says.

mod attach;
mod body;
mod bonds;
mod conflicts;
mod containers;
mod data;
mod distribution;
mod error;
mod events;
mod exec;
mod filters;
mod images;
mod jobs;
mod limited;
pub mod logs;
mod lookup;
mod networks;
mod nodes;
mod not_here;
mod params;
mod plan;
pub mod rollouts;
mod router;
mod services;
mod shoal;
mod socket;
mod spec;
pub mod status;
mod swarm;
mod system;
mod tasks;
#[cfg(test)]
pub(crate) mod tests;
pub mod time;
pub mod volumes;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use shoal_cluster::intent::name::Name;
use shoal_cluster::membership::member::Role;
use shoal_cluster::{Command, CommandError, NodeId, Receipt, Views};
use shoal_runtime::image::progress::Progress;
use shoal_runtime::image::registry::Login;
use shoal_runtime::image::{Digest, ImageStore, Reference};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::executor::health::HealthBoard;
use crate::identity::DataKey;
use crate::reach::Reach;
use crate::volumes::Volumes;

pub use events::{Events, watch as watch_events};
pub use exec::Instances as Execs;
pub use socket::{ApiSocket, SocketError};
pub use spec::{accept_outline, of_models};

/// The newest version of the Docker Engine API that is spoken.
pub const API_VERSION: (u32, u32) = (1, 44);
/// The oldest one that is accepted, which is what Docker's own engine accepts.
pub const API_VERSION_MIN: (u32, u32) = (1, 24);
/// How long answers that are under way may take after the node was told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// All that the API needs of the node. Cheap to clone.
#[derive(Clone)]
pub struct NodeHandle {
    /// The present views.
    pub views: watch::Receiver<Arc<Views>>,
    /// Where commands for the core go.
    pub commands: mpsc::Sender<Request>,
    /// What does not change while the node runs.
    pub about: Arc<About>,
    /// What is known of the health of this node's tasks.
    pub health: Arc<HealthBoard>,
    /// This node's volumes.
    pub volumes: Arc<Volumes>,
    /// This node's images.
    pub images: Arc<ImageStore>,
    /// Told each time the API has changed which images there are.
    pub images_changed: Arc<Notify>,
    /// Where images come from that are not here.
    pub sources: Arc<dyn Sources>,
    /// The tasks of all nodes.
    pub reach: Reach,
    /// Commands that clients asked for in containers.
    pub execs: Arc<Execs>,
    /// What happened lately.
    pub events: Arc<Events>,
    /// Where it is asked to leave the shoal for good; the answer comes once it has left.
    pub leave: mpsc::Sender<oneshot::Sender<()>>,
}

/// Where images come from that this node does not have: other nodes, and registries. Bounded in time by whoever
/// provides it.
pub trait Sources: Send + Sync {
    /// Returns the digest that a name stands for, at a node that is up or else at its registry.
    fn find(&self, reference: Reference, login: Option<Login>) -> BoxFuture<'static, Result<Digest, PullError>>;

    /// Fetches what a name means now. Returns the digest, and whether anything had to be fetched.
    fn pull(
        &self,
        reference: Reference,
        login: Option<Login>,
        progress: Arc<Progress>,
    ) -> BoxFuture<'static, Result<(Digest, bool), PullError>>;

    /// Shows a login to a registry.
    fn check_login(&self, registry: String, login: Login) -> BoxFuture<'static, Result<(), PullError>>;
}

/// Why an image did not come. Nothing half is registered. The texts are for operators, causes included.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Nobody has it, or not for this machine.
    #[error("{0}")]
    NotFound(String),
    /// The registry wants a login, or another one.
    #[error("{0}")]
    Denied(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// A command for the core, and where the answer goes once it is durable.
#[derive(Debug)]
pub struct Request {
    /// What the operator wants.
    pub command: Command,
    /// Where to say what became of it.
    pub answer: oneshot::Sender<Result<Applied, ApplyError>>,
}

/// A command that was carried out and is durable here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What came of it.
    pub receipt: Receipt,
    /// On how many other nodes' disks it is, as far as is known here.
    pub copies: usize,
    /// How many other members are up.
    pub others_up: usize,
    /// How many other members there are, up or not; those that left do not count.
    pub others: usize,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The core refused it. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// The node is about to stop. Nothing was changed.
    #[error("this node is stopping: ask another node, or start this one again")]
    Stopping,
    /// It could not be made durable, so it may or may not be there after a restart.
    #[error("the change could not be stored ({0}): see the node's log, free its disk, and start it again")]
    Store(String),
}

/// What the API says of its node.
pub struct About {
    /// Which node this is.
    pub id: NodeId,
    /// Its name.
    pub name: Name,
    /// What its certificate lets it do.
    pub role: Role,
    /// Fingerprint of the shoal's CA.
    pub shoal: [u8; 32],
    /// The CA's certificate in PEM.
    pub ca_pem: String,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// Where others reach it for gossip and admission, as `host:port`.
    pub advertised: String,
    /// Where it answers DNS queries, each as `address:port`.
    pub dns: Vec<String>,
    /// When it was started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// The tokens that admit others, if this node may admit.
    pub tokens: Tokens,
    /// Seals secrets and configs.
    pub data_key: DataKey,
    /// Reads the counters of what it has sent and received.
    pub traffic: Box<dyn Fn() -> status::Traffic + Send + Sync>,
}

/// Join tokens; absent where this node does not hold them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Admits managers.
    pub manager: Option<String>,
    /// Admits workers.
    pub worker: Option<String>,
}

impl NodeHandle {
    /// Returns the present views.
    fn views(&self) -> Arc<Views> {
        Arc::clone(&self.views.borrow())
    }

    /// Has the core carry out a command, and returns once that is durable here, and on another node if one is up and
    /// confirms it soon.
    async fn apply(&self, command: Command) -> Result<Applied, ApplyError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Request { command, answer }).await.map_err(|_| ApplyError::Stopping)?;
        answered.await.map_err(|_| ApplyError::Stopping)?
    }
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").field("about", &self.about).finish_non_exhaustive()
    }
}

impl fmt::Debug for About {
    /// Leaves out the tokens: they are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("About").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Binds the API's socket, in place of one that a dead node left behind. Only root and the socket's group may use it.
///
/// # Errors
/// [`SocketError::InUse`] if a node listens there, [`SocketError::Io`] if it cannot be made.
pub async fn bind(path: &Path) -> Result<ApiSocket, SocketError> {
    ApiSocket::bind(path).await
}

/// Answers requests until `stopped` is ready; answers that are under way then have a moment to end.
pub async fn serve(socket: ApiSocket, node: NodeHandle, stopped: impl Future<Output = ()> + Send + 'static) {
    let stopping = Arc::new(Notify::new());
    let stop = {
        let stopping = Arc::clone(&stopping);
        async move {
            stopped.await;
            stopping.notify_one();
        }
    };
    let serving = axum::serve(socket.listener(), router::router(node)).with_graceful_shutdown(stop);
    let deadline = async {
        stopping.notified().await;
        tokio::time::sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        // Accepting never fails: it logs and tries again.
        _ = serving.into_future() => {}
        () = deadline => {}
    }
}
