//! The executor: turns the core's task commands into containers, and tells what became of them.
//!
//! Input: [`TaskCommand`]s. Output: [`TaskEvent`]s. Each task has one job from start to end; commands are idempotent.

mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::{TaskCommand, TaskEvent, TaskId, TaskOrder, Views};
use shoal_overlay::Overlay;
use shoal_runtime::container::{ContainerState, ContainerStatus, Exit, Runtime};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::images::{Images, chain};

/// The label under which a container keeps the [`TaskOrder`] that it was made for.
pub(crate) const ORDER_LABEL: &str = "shoal.order";

/// What a job needs of the node.
pub struct Host {
    /// The node's name, for the tasks' environment.
    pub node_name: String,
    /// Parent cgroup of this node's containers.
    pub cgroup_parent: String,
    /// Containers.
    pub runtime: Runtime,
    /// Links.
    pub overlay: Arc<Overlay>,
    /// Images.
    pub images: Arc<Images>,
    /// The present views.
    pub views: watch::Receiver<Arc<Views>>,
    /// Where events go.
    pub events: mpsc::UnboundedSender<TaskEvent>,
}

impl Host {
    /// Tells the core; it may be gone when the node stops, and then nobody needs to know.
    fn tell(&self, event: TaskEvent) {
        let _ = self.events.send(event);
    }
}

/// Returns what a container was made for.
fn order_of(container: &ContainerStatus) -> Option<TaskOrder> {
    container.labels.get(ORDER_LABEL).and_then(|text| serde_json::from_str(text).ok())
}

/// Returns the signal by which a container's service wants it to be asked to end, and how long it then has.
pub(crate) fn stop_of(container: &ContainerStatus) -> (i32, Duration) {
    let default = (nix::sys::signal::Signal::SIGTERM as i32, Duration::from_secs(10));
    order_of(container)
        .map_or(default, |order| (spec::stop_signal(&order), Duration::from_millis(order.spec.stop_grace_ms)))
}

/// Runs until the commands' sender is gone.
pub async fn run(host: Arc<Host>, mut commands: mpsc::UnboundedReceiver<TaskCommand>) {
    let mut jobs: BTreeMap<TaskId, CancellationToken> = recover(&host).await;
    while let Some(command) = commands.recv().await {
        match command {
            TaskCommand::Start(order) => {
                if let std::collections::btree_map::Entry::Vacant(vacant) = jobs.entry(order.id) {
                    let stop = vacant.insert(CancellationToken::new()).clone();
                    tokio::spawn(start(Arc::clone(&host), order, stop));
                }
            }
            TaskCommand::Stop(id) => match jobs.get(&id) {
                Some(stop) => stop.cancel(),
                None => host.tell(TaskEvent::Ended { id, exit_code: None, error: String::new() }),
            },
            TaskCommand::Remove(id) => {
                jobs.remove(&id);
                let host = Arc::clone(&host);
                tokio::spawn(async move { remove(&host, id).await });
            }
        }
    }
}

/// Finds the containers that outlived the node's last run: those that still run go on, the others are removed.
async fn recover(host: &Arc<Host>) -> BTreeMap<TaskId, CancellationToken> {
    let mut jobs = BTreeMap::new();
    let mut orders = Vec::new();
    for container in host.runtime.list() {
        let order = order_of(&container);
        match (container.state, order) {
            (ContainerState::Running { pid }, Some(order)) => orders.push((order, pid)),
            _ => {
                if let Err(error) = host.runtime.remove(&container.id).await {
                    tracing::warn!(container = container.id, error = chain(&error), "cannot remove an old container");
                }
            }
        }
    }
    let keep: BTreeSet<String> = orders.iter().map(|(order, _)| order.id.to_string()).collect();
    if let Err(error) = host.overlay.retain(keep).await {
        tracing::warn!(error = chain(&error), "cannot remove the links of old tasks");
    }
    for (order, pid) in &orders {
        tracing::info!(task = %order.id, service = %order.service_name, slot = order.slot, "adopted a running task");
        if let Err(error) = host.overlay.attach(&order.id.to_string(), *pid, order.addresses).await {
            tracing::warn!(task = %order.id, error = chain(&error), "cannot repair the link of a task");
        }
        let stop = CancellationToken::new();
        jobs.insert(order.id, stop.clone());
        let (host, order) = (Arc::clone(host), order.clone());
        tokio::spawn(async move {
            let _held = host.images.hold(&order.spec.image);
            finish(&host, &order, &stop).await;
        });
    }
    host.tell(TaskEvent::Recovered(orders.into_iter().map(|(order, _)| order).collect()));
    jobs
}

/// One task from start to end.
async fn start(host: Arc<Host>, mut order: TaskOrder, stop: CancellationToken) {
    // Its layers stay while it runs, whatever becomes of its service.
    let _held = host.images.hold(&order.spec.image);
    let begun = tokio::select! {
        begun = begin(&host, &mut order) => begun,
        () = stop.cancelled() => Err((None, String::new())),
    };
    match begun {
        Ok(()) => {
            host.tell(TaskEvent::Running(order.id));
            finish(&host, &order, &stop).await;
        }
        Err((exit_code, error)) => {
            remove(&host, order.id).await;
            host.tell(TaskEvent::Ended { id: order.id, exit_code, error });
        }
    }
}

/// Fetches, makes, plugs in and starts; or says with which exit code and why not.
async fn begin(host: &Host, order: &mut TaskOrder) -> Result<(), (Option<i32>, String)> {
    let told = |error: &dyn std::error::Error| (None, chain(error));
    let key = order.id.to_string();
    let wanted = &order.spec.image;
    let (image, layers) =
        host.images.ensure(&wanted.reference, wanted.digest.as_deref()).await.map_err(|error| told(&error))?;
    host.tell(TaskEvent::Starting(order.id));
    spec::take_defaults(order, &image.config);
    let dns = host.views.borrow().routes.own.node();
    let mut spec = spec::container(host, order, &image.config, layers, dns);
    let label = serde_json::to_string(order).map_err(|error| told(&error))?;
    spec.labels.insert(ORDER_LABEL.to_owned(), label);
    let failed = |error: shoal_runtime::container::StartError| (Some(error.exit_code()), chain(&error));
    let created = host.runtime.create(&spec).await.map_err(failed)?;
    host.overlay.attach(&key, created.pid, order.addresses).await.map_err(|error| told(&error))?;
    host.runtime.start(&key).await.map_err(failed)
}

/// Waits for the end of a running task, or ends it when asked, and tells.
async fn finish(host: &Host, order: &TaskOrder, stop: &CancellationToken) {
    let key = order.id.to_string();
    let exit = tokio::select! {
        exit = host.runtime.wait(&key) => exit,
        () = stop.cancelled() => {
            let grace = Duration::from_millis(order.spec.stop_grace_ms);
            host.runtime.stop(&key, spec::stop_signal(order), grace).await
        }
    };
    if let Err(error) = host.overlay.detach(&key).await {
        tracing::warn!(task = key, error = chain(&error), "cannot remove the link of a task");
    }
    let (exit_code, error) = match exit {
        Ok(exit) => (Some(exit.code), why(&exit)),
        Err(error) => (None, chain(&error)),
    };
    host.tell(TaskEvent::Ended { id: order.id, exit_code, error });
}

/// Returns Docker's words for an end that was not plain.
fn why(exit: &Exit) -> String {
    match (&exit.error, exit.oom, exit.code) {
        (Some(error), _, _) => error.clone(),
        (None, true, code) => format!("task: non-zero exit ({code}): the kernel killed it for want of memory"),
        (None, false, 0) => String::new(),
        (None, false, code) => format!("task: non-zero exit ({code})"),
    }
}

async fn remove(host: &Host, id: TaskId) {
    let key = id.to_string();
    if let Err(error) = host.overlay.detach(&key).await {
        tracing::debug!(task = key, error = chain(&error), "no link to remove");
    }
    if let Err(error) = host.runtime.remove(&key).await {
        tracing::warn!(task = key, error = chain(&error), "cannot remove a container");
    }
}

/// Ends all tasks of this node, side by side: the node stops.
pub async fn stop_all(host: &Arc<Host>) {
    let mut ends = tokio::task::JoinSet::new();
    for container in host.runtime.list() {
        let host = Arc::clone(host);
        ends.spawn(async move {
            let order = order_of(&container);
            if let (ContainerState::Running { .. }, Some(order)) = (&container.state, order) {
                let grace = Duration::from_millis(order.spec.stop_grace_ms);
                if let Err(error) = host.runtime.stop(&container.id, spec::stop_signal(&order), grace).await {
                    tracing::warn!(task = container.id, error = chain(&error), "cannot stop a task");
                }
            }
            if let Err(error) = host.runtime.remove(&container.id).await {
                tracing::warn!(task = container.id, error = chain(&error), "cannot remove a container");
            }
        });
    }
    while ends.join_next().await.is_some() {}
}
