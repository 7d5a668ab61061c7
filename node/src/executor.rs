//! The executor: turns the core's task commands into containers, and tells what became of them.
//!
//! Input: [`TaskCommand`]s. Output: [`TaskEvent`]s. Each task has one job from start to end; commands are idempotent.

mod files;
pub mod health;
mod options;
mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use oci_spec::image::ImageConfiguration;
use shoal_cluster::intent::service::RestartCondition;
use shoal_cluster::intent::service::container::MountSource;
use shoal_cluster::io::DRAIN;
use shoal_cluster::{TaskCommand, TaskEvent, TaskId, TaskOrder, Views};
use shoal_dns::DnsServer;
use shoal_overlay::Overlay;
use shoal_runtime::container::{ContainerState, ContainerStatus, Exit, FailureKind, Runtime, StartError};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::files::Files;
use self::health::HealthBoard;
pub use self::options::check;
use crate::identity::DataKey;
use crate::images::{Images, chain};
use crate::volumes::Volumes;

/// The label under which a container keeps the [`TaskOrder`] that it was made for.
pub(crate) const ORDER_LABEL: &str = "shoal.order";

/// Docker's words for a task whose health check failed.
const UNHEALTHY: &str = "task: unhealthy container";

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
    /// Answers the tasks' questions.
    pub dns: Arc<DnsServer>,
    /// Volumes.
    pub volumes: Arc<Volumes>,
    /// What is known of the tasks' health.
    pub health: Arc<HealthBoard>,
    /// Opens secrets and configs.
    pub data_key: DataKey,
    /// The file that tells the tasks of fenced services that this daemon lives.
    pub lease: PathBuf,
    /// Where secrets and configs are mounted from.
    pub files: PathBuf,
    /// The present views.
    pub views: watch::Receiver<Arc<Views>>,
    /// Where events go.
    pub events: mpsc::UnboundedSender<TaskEvent>,
    /// Ends every task of this node, and lets none begin: the node stops.
    pub stopping: CancellationToken,
    /// All that is under way here.
    pub jobs: TaskTracker,
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
            TaskCommand::Start(_) if host.stopping.is_cancelled() => {}
            TaskCommand::Start(order) => {
                if let std::collections::btree_map::Entry::Vacant(vacant) = jobs.entry(order.id) {
                    let stop = vacant.insert(host.stopping.child_token()).clone();
                    host.jobs.spawn(start(Arc::clone(&host), order, stop));
                }
            }
            TaskCommand::Drain(id) if jobs.contains_key(&id) => {
                let stop = jobs[&id].clone();
                // A job that ends before then does not listen any more.
                host.jobs.spawn(async move {
                    tokio::select! {
                        () = tokio::time::sleep(DRAIN) => stop.cancel(),
                        () = stop.cancelled() => {}
                    }
                });
            }
            TaskCommand::Stop(id) | TaskCommand::Drain(id) => match jobs.get(&id) {
                Some(stop) => stop.cancel(),
                None => host.tell(TaskEvent::Ended { id, exit_code: None, error: String::new() }),
            },
            TaskCommand::Remove(id) => {
                jobs.remove(&id);
                let removing = Arc::clone(&host);
                host.jobs.spawn(async move { remove(&removing, id).await });
            }
        }
    }
}

/// Finds the containers that outlived the node's last run: those that still run go on, of those that did their work
/// meanwhile it is told, the others are removed.
async fn recover(host: &Arc<Host>) -> BTreeMap<TaskId, CancellationToken> {
    files::clean(&host.files);
    let mut jobs = BTreeMap::new();
    let mut orders = Vec::new();
    for container in host.runtime.list() {
        let order = order_of(&container);
        match (container.state, order) {
            (ContainerState::Running { pid }, Some(order)) => orders.push((order, Some(pid))),
            (ContainerState::Exited(exit), Some(order)) if did_its_work(&order, &exit) => orders.push((order, None)),
            _ => {
                if let Err(error) = host.runtime.remove(&container.id).await {
                    tracing::warn!(container = container.id, error = chain(&error), "cannot remove an old container");
                }
            }
        }
    }
    let ids: Vec<TaskId> = orders.iter().map(|(order, _)| order.id).collect();
    host.volumes.retain_of_tasks(&ids);
    host.health.retain(&ids);
    let keep: BTreeSet<String> = orders.iter().map(|(order, _)| order.id.to_string()).collect();
    if let Err(error) = host.overlay.retain(keep).await {
        tracing::warn!(error = chain(&error), "cannot remove the links of old tasks");
    }
    for (order, pid) in &orders {
        let Some(pid) = *pid else { continue };
        tracing::info!(task = %order.id, service = %order.service_name, slot = order.slot, "adopted a running task");
        if let Err(error) = host.overlay.attach(&order.id.to_string(), pid, order.addresses).await {
            tracing::warn!(task = %order.id, error = chain(&error), "cannot repair the link of a task");
        }
        introduce(host, order);
    }
    let orders: Vec<TaskOrder> = orders.into_iter().map(|(order, _)| order).collect();
    let (running, starting) = orders.iter().cloned().partition(|order| runs_already(host, order));
    // Before anything else is said of them: the agent ends what it does not know.
    host.tell(TaskEvent::Recovered { running, starting });
    for order in orders {
        let stop = host.stopping.child_token();
        jobs.insert(order.id, stop.clone());
        let adopting = Arc::clone(host);
        host.jobs.spawn(async move {
            let _held = adopting.images.hold(&order.spec.image);
            finish(&adopting, &order, &stop).await;
        });
    }
    jobs
}

/// Tells whether a task whose container has ended is not to be started again.
fn did_its_work(order: &TaskOrder, exit: &Exit) -> bool {
    order.spec.restart.condition != RestartCondition::Any && exit.code == 0 && exit.error.is_none()
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
            if order.spec.health.is_none() {
                host.tell(TaskEvent::Running(order.id));
            }
            finish(&host, &order, &stop).await;
        }
        Err((exit_code, error)) => {
            part_with(&host, &order);
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
    spec::take_defaults(order, &image);
    introduce(host, order);
    let dns = host.views.borrow().routes.own.node();
    make_volumes(host, order).await?;
    // They are mounted until the container has them.
    let _files = Files::make(host, order).await.map_err(|error| (None, error))?;
    let mut spec = spec::container(host, order, &image.config, layers, dns);
    let label = serde_json::to_string(order).map_err(|error| told(&error))?;
    spec.labels.insert(ORDER_LABEL.to_owned(), label);
    let failed = |error: StartError| (Some(error.exit_code()), chain(&error) + &foreign(&error, &image.config));
    let created = host.runtime.create(&spec).await.map_err(failed)?;
    host.overlay.attach(&key, created.pid, order.addresses).await.map_err(|error| told(&error))?;
    host.runtime.start(&key).await.map_err(failed)
}

/// Makes the volumes that a task mounts and that are not there yet.
async fn make_volumes(host: &Host, order: &TaskOrder) -> Result<(), (Option<i32>, String)> {
    let (volumes, id, mounts) = (Arc::clone(&host.volumes), order.id, order.spec.container.mounts.clone());
    let made = tokio::task::spawn_blocking(move || {
        mounts.iter().enumerate().try_for_each(|(number, mount)| match &mount.source {
            MountSource::Volume { name: Some(name), labels, .. } => volumes.ensure(name, labels).map(drop),
            MountSource::Volume { name: None, .. } => volumes.ensure_of_task(&id, number).map(drop),
            MountSource::Bind(_) | MountSource::Tmpfs { .. } => Ok(()),
        })
    });
    let made = made.await.map_err(|error| (None, chain(&error)))?;
    made.map_err(|error| (None, chain(&error)))
}

/// Tells whether a task that outlived the node's last run counts as running.
fn runs_already(host: &Host, order: &TaskOrder) -> bool {
    order.spec.health.is_none() || host.health.was_healthy(&order.id)
}

/// Tells the DNS server whose questions come from a task's addresses, and who answers those about names outside the shoal,
/// if its service says.
fn introduce(host: &Host, order: &TaskOrder) {
    let (service, resolvers) = (order.service_name.as_str(), &order.spec.container.dns.nameservers);
    order.addresses.iter().for_each(|address| host.dns.set_client(address, service, resolvers));
}

/// Takes that back: its addresses will be another's.
fn part_with(host: &Host, order: &TaskOrder) {
    order.addresses.iter().for_each(|address| host.dns.forget_client(address));
}

/// Returns the likely reason for a command that cannot be executed: the image is for another processor. Only then, as
/// the kernel may know how to run programs of others (binfmt_misc).
fn foreign(error: &StartError, image: &ImageConfiguration) -> String {
    let (theirs, ours) = (image.architecture().to_string(), crate::host::architecture());
    match error {
        StartError::Failed { kind: FailureKind::CommandNotExecutable, .. } if theirs != ours => {
            format!(
                " (the image is for {theirs}, this node is {ours}: use an image for {ours} or for several platforms)"
            )
        }
        StartError::Failed { .. }
        | StartError::Invalid(_)
        | StartError::Exists(_)
        | StartError::Missing(_)
        | StartError::NotCreated(_)
        | StartError::NotRunning(_)
        | StartError::Shim(_)
        | StartError::Io { .. } => String::new(),
    }
}

/// Waits for the end of a running task, or ends it when asked or when it does not work, and tells.
async fn finish(host: &Host, order: &TaskOrder, stop: &CancellationToken) {
    let key = order.id.to_string();
    let grace = Duration::from_millis(order.spec.stop_grace_ms);
    let end = || host.runtime.stop(&key, spec::stop_signal(order), grace);
    let mut unhealthy = false;
    let exit = tokio::select! {
        exit = host.runtime.wait(&key) => exit,
        () = stop.cancelled() => end().await,
        () = health::watch(&host.health, &host.runtime, order, || host.tell(TaskEvent::Running(order.id))) => {
            unhealthy = true;
            host.tell(TaskEvent::Unhealthy(order.id));
            end().await
        }
    };
    if let Err(error) = host.overlay.detach(&key).await {
        tracing::warn!(task = key, error = chain(&error), "cannot remove the link of a task");
    }
    part_with(host, order);
    let (exit_code, error) = match exit {
        Ok(exit) if unhealthy => (Some(exit.code), UNHEALTHY.to_owned()),
        Ok(exit) => (Some(exit.code), why(&exit)),
        Err(error) => (None, chain(&error)),
    };
    host.tell(TaskEvent::Ended { id: order.id, exit_code, error });
}

/// Returns Docker's words for an end that was not plain, and the reason where it is known.
fn why(exit: &Exit) -> String {
    let signal = exit.signal.map(|signal| match nix::sys::signal::Signal::try_from(signal) {
        Ok(signal) => signal.to_string(),
        Err(_) => format!("signal {signal}"),
    });
    match (&exit.error, exit.oom, exit.code, signal) {
        (Some(error), ..) => error.clone(),
        // What the kernel killed then was a child that the command did without.
        (None, _, 0, _) => String::new(),
        (None, true, code, _) => format!("task: non-zero exit ({code}): OOM killed"),
        (None, false, code, Some(signal)) => format!("task: non-zero exit ({code}): killed by {signal}"),
        (None, false, code, None) => format!("task: non-zero exit ({code})"),
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
    host.health.forget(&id);
    let volumes = Arc::clone(&host.volumes);
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || volumes.remove_of_task(&id)).await {
        tracing::warn!(task = key, error = chain(&error), "cannot remove a task's own volumes");
    }
}

/// Ends all tasks of this node, side by side, those included whose containers are being made: the node stops.
pub async fn stop_all(host: &Arc<Host>) {
    host.stopping.cancel();
    host.jobs.close();
    host.jobs.wait().await;
    let removing = host.runtime.list().into_iter().map(|container| {
        let host = Arc::clone(host);
        async move {
            if let Err(error) = host.runtime.remove(&container.id).await {
                tracing::warn!(task = container.id, error = chain(&error), "cannot remove a container");
            }
        }
    });
    futures::future::join_all(removing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_for_another_processor_is_named_when_its_command_cannot_be_executed() {
        let other = if crate::host::architecture() == "arm64" { "amd64" } else { "arm64" };
        let image = |architecture: &str| -> ImageConfiguration {
            let rootfs = serde_json::json!({ "type": "layers", "diff_ids": [] });
            let config = serde_json::json!({ "architecture": architecture, "os": "linux", "rootfs": rootfs });
            serde_json::from_value(config).unwrap()
        };
        let failed = |kind| StartError::Failed { kind, message: "exec format error".to_owned() };
        let told = foreign(&failed(FailureKind::CommandNotExecutable), &image(other));
        assert!(told.contains(&format!("the image is for {other}")), "{told}");
        assert_eq!(foreign(&failed(FailureKind::CommandNotFound), &image(other)), "");
        assert_eq!(foreign(&failed(FailureKind::CommandNotExecutable), &image(crate::host::architecture())), "");
    }

    #[test]
    fn ends_are_told_in_dockers_words_with_signal_and_memory() {
        let exit =
            |code, signal, oom| why(&Exit { code, signal, oom, error: None, finished_at_ms: 2, started_at_ms: 1 });
        assert_eq!(exit(0, None, false), "");
        assert_eq!(exit(0, None, true), "");
        assert_eq!(exit(3, None, false), "task: non-zero exit (3)");
        assert_eq!(exit(137, Some(9), false), "task: non-zero exit (137): killed by SIGKILL");
        assert_eq!(exit(137, Some(9), true), "task: non-zero exit (137): OOM killed");
        assert_eq!(exit(162, Some(34), false), "task: non-zero exit (162): killed by signal 34");
        let error = Some("no such user".to_owned());
        assert_eq!(
            why(&Exit { code: 125, signal: None, oom: false, error, finished_at_ms: 2, started_at_ms: 0 }),
            "no such user"
        );
    }
}
