//! The end of a node: what it runs goes to the others, the new tasks first.

use std::sync::Arc;
use std::time::Duration;

use shoal_cluster::{Command, NodeId, Views};
use tokio::sync::oneshot;

use crate::api::{NodeHandle, Request};
use crate::executor::{self, Host};

/// How long a node that stops waits until others run what it runs: as long as a container may take to start elsewhere, its
/// image to be fetched included. A second signal ends the wait.
const HAND_OVER_MAX: Duration = Duration::from_secs(30);
/// How long the goodbye has to reach the others before the tasks are stopped.
const GOODBYE: Duration = Duration::from_millis(300);

/// Hands this node's tasks over, says goodbye, then stops what is left.
pub(super) async fn stop(node: &NodeHandle, host: &Arc<Host>) {
    tracing::info!("stopping: this node's tasks go to the others; a second signal stops them at once");
    if tell(node, Command::HandOver).await {
        let mut views = node.views.clone();
        let own = node.about.id;
        tokio::select! {
            _ = views.wait_for(|views| !runs_any(views, &own)) => {}
            () = tokio::time::sleep(HAND_OVER_MAX) => tracing::warn!("stopping though some tasks run nowhere else"),
            () = told_to_stop() => {}
        }
    }
    if tell(node, Command::Leave).await {
        tokio::time::sleep(GOODBYE).await;
    }
    executor::stop_all(host).await;
}

/// Gives the core a command; tells whether it was carried out. If the driver is gone, so is the way to say anything.
async fn tell(node: &NodeHandle, command: Command) -> bool {
    let (answer, answered) = oneshot::channel();
    node.commands.send(Request { command, answer }).await.is_ok() && answered.await.is_ok()
}

/// Tells whether anything of a task may still run on a node.
fn runs_any(views: &Views, node: &NodeId) -> bool {
    views.tasks.iter().any(|task| task.node == *node && !task.report.state.is_final())
}

/// Returns when the node is told to stop.
pub(super) async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).ok());
    let [interrupt, terminate] = &mut signals;
    tokio::select! {
        Some(_) = async { interrupt.as_mut()?.recv().await } => {}
        Some(_) = async { terminate.as_mut()?.recv().await } => {}
        else => std::future::pending().await,
    }
}
