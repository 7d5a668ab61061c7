//! What the nodes say: members and tasks by their API, pages by HTTP, and the output of our own commands.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::lab::Host;
use super::namespace;
use crate::client::Client;
use crate::whoami;

/// How often a condition is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// A task as a node's API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// Its id.
    pub(super) id: String,
    /// The id of its node.
    pub(super) node: String,
    /// Its slot.
    pub(super) slot: i64,
}

/// Waits until `look` finds something.
///
/// # Errors
/// It found nothing for `patience`; the error says what was waited for and what `look` said last.
pub(super) async fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("waited {} s in vain: {what}", patience.as_secs())));
            }
            Err(_) => tokio::time::sleep(LOOK_INTERVAL).await,
        }
    }
}

/// Returns the id of a host's node.
pub(super) async fn id(host: &Host) -> anyhow::Result<String> {
    let status: Value = Client::connect(&host.socket).await?.ask("/shoal/status").await?;
    status["node"]["id"].as_str().map(str::to_owned).context("the status has no id")
}

/// Makes sure that a host's node sees this many members that are ready.
pub(super) async fn see_ready(host: &Host, count: usize) -> anyhow::Result<()> {
    let nodes: Vec<Value> = Client::connect(&host.socket).await?.ask("/nodes").await?;
    let ready = nodes.iter().filter(|node| node["Status"]["State"] == "ready").count();
    anyhow::ensure!(ready == count, "{} sees {ready} nodes ready, not {count}", host.name);
    Ok(())
}

/// Returns the tasks that are to run and do, as a host's node sees them, by slot.
pub(super) async fn running(host: &Host) -> anyhow::Result<Vec<Task>> {
    let tasks: Vec<Value> = Client::connect(&host.socket).await?.ask("/tasks").await?;
    let runs = |task: &&Value| task["DesiredState"] == "running" && task["Status"]["State"] == "running";
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let task = |task: &Value| Task {
        id: text(&task["ID"]),
        node: text(&task["NodeID"]),
        slot: task["Slot"].as_i64().unwrap_or(0),
    };
    let mut running: Vec<Task> = tasks.iter().filter(runs).map(task).collect();
    running.sort_by_key(|task| task.slot);
    Ok(running)
}

/// Makes sure that exactly the slots 1 to `count` run, once each, as a host's node sees it, and returns their tasks.
pub(super) async fn exactly(host: &Host, count: i64) -> anyhow::Result<Vec<Task>> {
    let tasks = running(host).await?;
    let slots: Vec<i64> = tasks.iter().map(|task| task.slot).collect();
    anyhow::ensure!(slots == (1..=count).collect::<Vec<_>>(), "{} sees the slots {slots:?} running", host.name);
    Ok(tasks)
}

/// Fetches a page from a host, not from a container.
pub(super) async fn page(host: &Host, address: Ipv4Addr) -> io::Result<String> {
    let namespace = host.namespace.clone();
    let fetch = move || namespace.run(move || whoami::get(&format!("http://{address}/")))?;
    tokio::task::spawn_blocking(fetch).await.map_err(io::Error::other)?
}

/// Fetches a page from each address of a name, with the program of the container whose process is `pid`, inside it.
pub(super) async fn pages_from_container(pid: i32, url: &'static str) -> io::Result<Vec<String>> {
    let fetch = move || {
        let ran = move || std::process::Command::new("/bin/whoami").args(["--get-each", url]).output();
        let output = namespace::inside_process(pid, ran)??;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            return Err(io::Error::other(text(&output.stderr)));
        }
        Ok(text(&output.stdout).split_terminator("\n\n").map(str::to_owned).collect())
    };
    tokio::task::spawn_blocking(fetch).await.map_err(io::Error::other)?
}

/// Runs one of our own commands against a host's node, and returns what it printed.
///
/// # Errors
/// It failed: the error is what it said.
pub(super) async fn command(host: &Host, line: &str) -> anyhow::Result<String> {
    let program = std::env::current_exe().context("cannot tell where shoal's own executable is")?;
    let run = tokio::process::Command::new(program)
        .arg("--socket")
        .arg(&host.socket)
        .args(line.split_whitespace())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .process_group(0)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), run)
        .await
        .with_context(|| format!("shoal {line}: no answer"))??;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    anyhow::ensure!(output.status.success(), "shoal {line}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
