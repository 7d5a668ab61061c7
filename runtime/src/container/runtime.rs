//! The daemon's half: makes bundles, starts shims, follows them, and adopts those of an earlier daemon.
//!
//! Input: specs and commands of the executor. Output: the state of every container, as levels that can be read and
//! waited for at any time. Liveness is a connection to the shim, never a process number, so that a reused number or
//! a rebooted host cannot fool it. Nothing here calls libcontainer, mounts, or enters namespaces.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::protocol::{Greeting, Reply, Request};
use super::{ContainerSpec, ContainerState, ContainerStatus, Created, Exit, RuntimeError, StartError};

mod attach;
mod check;
mod exec;
mod follow;
mod link;

pub use exec::{Exec, ExecEnd, ExecExit, ExecOutput, ExecTerminal, LogStream};
use link::Link;

/// How long a shim may take to create a container, and any other shim to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long another daemon may take to let go of the state directory.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the end may take after SIGKILL before the shim itself is killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// How to start a shim.
#[derive(Clone, Debug)]
pub struct ShimCommand {
    /// The executable whose `main` calls [`super::shim_main`] if its first argument is `shim`; usually the daemon's own.
    pub exe: PathBuf,
    /// A program with the command line of `runc` that makes the containers, for example `/usr/bin/crun`. `None`: the
    /// shim does it itself. Containers that run keep what they were made with.
    pub runtime: Option<PathBuf>,
}

/// All containers of one state directory. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state_dir: PathBuf,
    shim: ShimCommand,
    containers: Mutex<BTreeMap<String, Slot>>,
    /// Held as long as the runtime: two daemons in one directory would remove each other's containers.
    _lock: Flock<File>,
}

#[derive(Clone, Debug)]
enum Slot {
    /// A `create` is under way; the channel closes when it has ended.
    Reserved(watch::Receiver<()>),
    Known(Arc<Handle>),
}

/// One container as the daemon sees it.
#[derive(Debug)]
struct Handle {
    id: String,
    labels: BTreeMap<String, String>,
    bundle: PathBuf,
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Debug)]
struct Phase {
    state: ContainerState,
    started_at_ms: u64,
}

impl ContainerSpec {
    /// Says why no container can be made from it, as far as it alone tells; [`Runtime::create`] does the same first.
    pub fn check(&self) -> Result<(), StartError> {
        check::spec(self).map_err(StartError::Invalid)
    }
}

impl Runtime {
    /// Opens a state directory, making it if needed, adopts the containers whose shims live and settles the others:
    /// afterwards [`list`](Self::list) tells the truth about each. The path should be at most 2,000 bytes long.
    pub async fn open(state_dir: PathBuf, shim: ShimCommand) -> Result<Self, RuntimeError> {
        let io = |doing: &str| io_error(format!("{doing} {}", state_dir.display()));
        fs::create_dir_all(&state_dir).map_err(io("make the state directory"))?;
        let state_dir = state_dir.canonicalize().map_err(io("open the state directory"))?;
        let containers = state_dir.join("containers");
        fs::create_dir_all(&containers).map_err(io("make directories in"))?;
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&containers, permissions).map_err(io("protect"))?;
        let lock = File::create(state_dir.join("lock")).map_err(io("make a lock in"))?;
        let lock = lock_exclusively(lock).await.map_err(|_| RuntimeError::InUse(state_dir.clone()))?;
        let inner = Inner { state_dir: containers, shim, containers: Mutex::default(), _lock: lock };
        let runtime = Self { inner: Arc::new(inner) };
        runtime.adopt_all().await?;
        Ok(runtime)
    }

    async fn adopt_all(&self) -> Result<(), RuntimeError> {
        let directory = &self.inner.state_dir;
        let failed = || io_error(format!("read {}", directory.display()));
        let mut adoptions = JoinSet::new();
        for entry in fs::read_dir(directory).map_err(failed())? {
            let bundle = entry.map_err(failed())?.path();
            if !bundle.is_dir() {
                continue;
            }
            adoptions.spawn(follow::adopt(self.inner.shim.clone(), bundle));
        }
        while let Some(adopted) = adoptions.join_next().await {
            if let Ok(Some(handle)) = adopted {
                self.containers().insert(handle.id.clone(), Slot::Known(handle));
            }
        }
        Ok(())
    }

    /// Creates a container: its namespaces, mounts, limits and cgroup, and a first process that waits for
    /// [`start`](Self::start). Until then the network can be plugged in. If it fails, nothing is left behind; if the
    /// future is dropped, the creation goes on by itself.
    pub async fn create(&self, spec: &ContainerSpec) -> Result<Created, StartError> {
        spec.check()?;
        let (under_way, ended) = watch::channel(());
        {
            let mut containers = self.containers();
            if containers.contains_key(&spec.id) {
                return Err(StartError::Exists(spec.id.clone()));
            }
            containers.insert(spec.id.clone(), Slot::Reserved(ended));
        }
        let (runtime, spec) = (self.clone(), spec.clone());
        let creation = tokio::spawn(async move {
            let _under_way = under_way;
            let created = follow::create(&runtime.inner.shim, &runtime.inner.state_dir, &spec).await;
            let mut containers = runtime.containers();
            match created {
                Ok((handle, pid)) => {
                    containers.insert(spec.id, Slot::Known(handle));
                    Ok(Created { pid })
                }
                Err(error) => {
                    containers.remove(&spec.id);
                    Err(error)
                }
            }
        });
        creation.await.unwrap_or_else(|error| Err(StartError::Shim(format!("could not be started: {error}"))))
    }

    /// Executes the command of a created container. Returns when it is executed, or with the reason why it cannot be.
    pub async fn start(&self, id: &str) -> Result<(), StartError> {
        let handle = self.find(id).ok_or_else(|| StartError::Missing(id.to_owned()))?;
        if !matches!(handle.phase.borrow().state, ContainerState::Created { .. }) {
            return Err(StartError::NotCreated(id.to_owned()));
        }
        let reply = timeout(ANSWER_TIMEOUT, handle.ask(&Request::Start)).await;
        match reply {
            Ok(Ok(Reply::Started { started_at_ms })) => {
                handle.phase.send_modify(|phase| phase.start(started_at_ms));
                Ok(())
            }
            Ok(Ok(Reply::Failed(failure))) => {
                // Its exit is on its way; whoever asks next shall see it.
                let _ = timeout(KILL_TIMEOUT, handle.exited()).await;
                Err(StartError::Failed { kind: failure.kind, message: failure.message })
            }
            Ok(Ok(_)) => Err(StartError::NotCreated(id.to_owned())),
            Ok(Err(error)) => Err(StartError::Shim(format!("is gone: {error}"))),
            Err(_) => Err(StartError::Shim("does not answer".to_owned())),
        }
    }

    /// Waits for a container's end; at once if it has ended. May be cancelled and called any number of times.
    pub async fn wait(&self, id: &str) -> Result<Exit, RuntimeError> {
        Ok(self.found(id)?.exited().await)
    }

    /// Sends a signal to a container's first process. One that is only created is killed by any signal; one that has
    /// ended is left in peace.
    pub async fn signal(&self, id: &str, signal: i32) -> Result<(), RuntimeError> {
        let handle = self.found(id)?;
        if handle.exit().is_some() {
            return Ok(());
        }
        let refused = |reason: String| RuntimeError::Shim { id: id.to_owned(), reason };
        match timeout(ANSWER_TIMEOUT, handle.ask(&Request::Signal(signal))).await {
            Ok(Ok(Reply::Done)) => Ok(()),
            Ok(Ok(Reply::Refused(reason))) => Err(refused(reason)),
            Ok(Ok(_)) => Err(refused("gave an answer to another question".to_owned())),
            // It is leaving, because the container has ended.
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(refused("does not answer".to_owned())),
        }
    }

    /// Asks a container to end with `signal`, kills it and all its processes after `grace`, and waits for the end.
    pub async fn stop(&self, id: &str, signal: i32, grace: Duration) -> Result<Exit, RuntimeError> {
        let handle = self.found(id)?;
        if self.signal(id, signal).await.is_ok()
            && let Ok(exit) = timeout(grace, handle.exited()).await
        {
            return Ok(exit);
        }
        self.kill(&handle).await
    }

    /// Kills a container whatever state it and its shim are in.
    async fn kill(&self, handle: &Handle) -> Result<Exit, RuntimeError> {
        let _ = timeout(KILL_TIMEOUT, handle.ask(&Request::Signal(libc::SIGKILL))).await;
        if let Ok(exit) = timeout(KILL_TIMEOUT, handle.exited()).await {
            return Ok(exit);
        }
        tracing::warn!(container = %handle.id, "the shim does not react, killing it");
        link::kill_shim(&handle.bundle).await.map_err(io_error(format!("kill the shim of container {}", handle.id)))?;
        timeout(KILL_TIMEOUT, handle.exited())
            .await
            .map_err(|_| RuntimeError::Shim { id: handle.id.clone(), reason: "cannot be killed".to_owned() })
    }

    /// Removes a container and all that it is on disk, killing it first if it runs. Nothing happens if there is none.
    pub async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.creation_has_ended(id).await;
        let Some(handle) = self.find(id) else { return Ok(()) };
        if handle.exit().is_none() {
            self.kill(&handle).await?;
        }
        follow::discard(&self.inner.shim, &handle.bundle).await.map_err(io_error(format!("remove container {id}")))?;
        let mut containers = self.containers();
        if matches!(containers.get(id), Some(Slot::Known(known)) if Arc::ptr_eq(known, &handle)) {
            containers.remove(id);
        }
        Ok(())
    }

    /// Returns all containers, ordered by id. Those whose creation is under way are not among them yet.
    #[must_use]
    pub fn list(&self) -> Vec<ContainerStatus> {
        let containers = self.containers();
        let known = containers.values().filter_map(|slot| match slot {
            Slot::Known(handle) => Some(handle.status()),
            Slot::Reserved(_) => None,
        });
        known.collect()
    }

    /// Returns where one container is, if it exists.
    #[must_use]
    pub fn status(&self, id: &str) -> Option<ContainerStatus> {
        self.find(id).map(|handle| handle.status())
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        // Every change is one call; a panic elsewhere leaves the map whole.
        self.inner.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a `create` that is under way: it goes on when its caller has lost interest.
    async fn creation_has_ended(&self, id: &str) {
        let under_way = match self.containers().get(id) {
            Some(Slot::Reserved(ended)) => Some(ended.clone()),
            Some(Slot::Known(_)) | None => None,
        };
        if let Some(mut ended) = under_way {
            // Nothing is ever sent, so this is an error: the channel has closed.
            let _ = ended.changed().await;
        }
    }

    fn find(&self, id: &str) -> Option<Arc<Handle>> {
        match self.containers().get(id) {
            Some(Slot::Known(handle)) => Some(handle.clone()),
            Some(Slot::Reserved(_)) | None => None,
        }
    }

    fn found(&self, id: &str) -> Result<Arc<Handle>, RuntimeError> {
        self.find(id).ok_or_else(|| RuntimeError::Missing(id.to_owned()))
    }
}

impl Handle {
    fn exit(&self) -> Option<Exit> {
        self.phase.borrow().exit()
    }

    async fn exited(&self) -> Exit {
        let mut phases = self.phase.subscribe();
        loop {
            if let Some(exit) = phases.borrow_and_update().exit() {
                return exit;
            }
            // Cannot fail: the sender is ours.
            let _ = phases.changed().await;
        }
    }

    async fn ask(&self, request: &Request) -> io::Result<Reply> {
        let (mut link, _) = Link::connect(&self.bundle).await?;
        link.ask(request).await
    }

    fn status(&self) -> ContainerStatus {
        let phase = self.phase.borrow();
        ContainerStatus {
            id: self.id.clone(),
            labels: self.labels.clone(),
            state: phase.state.clone(),
            started_at_ms: phase.started_at_ms,
        }
    }
}

impl Phase {
    fn exited(exit: Exit) -> Self {
        Self { started_at_ms: exit.started_at_ms, state: ContainerState::Exited(exit) }
    }

    fn exit(&self) -> Option<Exit> {
        match &self.state {
            ContainerState::Exited(exit) => Some(exit.clone()),
            ContainerState::Created { .. } | ContainerState::Running { .. } => None,
        }
    }

    /// Moves forward only: the end may have been seen before the answer to `start`.
    fn start(&mut self, started_at_ms: u64) {
        if let ContainerState::Created { pid } = self.state {
            self.state = ContainerState::Running { pid };
            self.started_at_ms = started_at_ms;
        }
    }

    /// The phase that a greeting tells of; a failed start is about to become an exit.
    fn greeted(greeting: &Greeting) -> Self {
        match greeting {
            Greeting::Created { pid } => Self { state: ContainerState::Created { pid: *pid }, started_at_ms: 0 },
            Greeting::Running { pid, started_at_ms } => {
                Self { state: ContainerState::Running { pid: *pid }, started_at_ms: *started_at_ms }
            }
            Greeting::Failed(_) => Self { state: ContainerState::Created { pid: 0 }, started_at_ms: 0 },
        }
    }
}

/// Locks a file that nobody else has locked. A daemon that was just killed may have left a child between its fork and
/// its exec, which holds the lock for a moment longer.
async fn lock_exclusively(mut file: File) -> Result<Flock<File>, nix::errno::Errno> {
    let begin = tokio::time::Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, errno)) if begin.elapsed() > LOCK_TIMEOUT => return Err(errno),
            Err((returned, _)) => file = returned,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn io_error(doing: String) -> impl FnOnce(io::Error) -> RuntimeError {
    move |source| RuntimeError::Io { doing, source }
}

fn start_error(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> StartError + use<> {
    let doing = format!("{doing} {}", path.display());
    move |source| StartError::Io { doing, source }
}
