//! `GET /containers/{id}/stats`: what a container uses, once or each second, as `docker stats` reads it.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use shoal_cluster::view::TaskView;
use shoal_runtime::container::{BlockStats, NetworkStats, Stats};
use tokio::sync::mpsc;

use super::{ask, find, unexpected};
use crate::api::error::ApiError;
use crate::api::params::{Params, Segment};
use crate::api::time::rfc3339;
use crate::api::{NodeHandle, lookup};
use crate::reach::{Answer, Question, Sample};

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// What Docker writes for a time that has not come.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `GET /containers/{id}/stats?stream=BOOL&one-shot=BOOL`
pub(in crate::api) async fn stats(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
) -> Result<Response, ApiError> {
    let task = find(&node, &id)?;
    let name = lookup::container_name(&node.views(), &task);
    let first = sample(&node, &task).await?;
    let streams = params.text("stream").is_none() || params.flag("stream");
    if !streams {
        if params.flag("one-shot") {
            return Ok(Json(show(&task, &name, &first, None)).into_response());
        }
        tokio::time::sleep(INTERVAL).await;
        let second = sample(&node, &task).await?;
        return Ok(Json(show(&task, &name, &second, Some(&first))).into_response());
    }
    let (sender, lines) = mpsc::channel(1);
    tokio::spawn(follow(node, task, name, first, sender));
    let stream = futures::stream::unfold(lines, |mut lines| async move {
        let line: Bytes = lines.recv().await?;
        Some((Ok::<_, Infallible>(line), lines))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response())
}

/// Samples until the container or the client is gone.
async fn follow(node: NodeHandle, task: TaskView, name: String, first: Box<Sample>, lines: mpsc::Sender<Bytes>) {
    let line = |value: Value| Bytes::from(format!("{value}\n"));
    let mut last = first;
    if lines.send(line(show(&task, &name, &last, None))).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = lines.closed() => return,
        }
        let Ok(next) = sample(&node, &task).await else { return };
        if lines.send(line(show(&task, &name, &next, Some(&last)))).await.is_err() {
            return;
        }
        last = next;
    }
}

pub(in crate::api) async fn sample(node: &NodeHandle, task: &TaskView) -> Result<Box<Sample>, ApiError> {
    match ask(node, task, Question::Sample).await? {
        Answer::Sample(sample) => Ok(sample),
        Answer::Details(_) | Answer::Processes(_) | Answer::Done | Answer::Ended(_) => Err(unexpected()),
    }
}

fn show(task: &TaskView, name: &str, sample: &Sample, before: Option<&Sample>) -> Value {
    let stats = &sample.stats;
    let networks: Map<String, Value> =
        stats.networks.iter().map(|network| (network.name.clone(), show_network(network))).collect();
    json!({
        "id": task.report.id.to_string(),
        "name": format!("/{name}"),
        "read": rfc3339(stats.read_at_ms),
        "preread": before.map_or_else(|| NEVER.to_owned(), |before| rfc3339(before.stats.read_at_ms)),
        "num_procs": 0,
        "cpu_stats": cpu(sample),
        "precpu_stats": before.map_or_else(|| cpu(&Sample::default()), cpu),
        "memory_stats": {
            "usage": stats.memory_bytes,
            "max_usage": stats.memory_peak_bytes,
            "limit": stats.memory_limit_bytes.unwrap_or(sample.memory_bytes),
            "failcnt": stats.oom_kills,
            // The names of both versions of cgroups: clients look for either.
            "stats": {
                "inactive_file": stats.memory_inactive_file_bytes,
                "total_inactive_file": stats.memory_inactive_file_bytes,
            },
        },
        "pids_stats": { "current": stats.pids, "limit": stats.pids_limit.unwrap_or_default() },
        "networks": networks,
        "blkio_stats": {
            "io_service_bytes_recursive": blocks(stats, 0),
            "io_serviced_recursive": blocks(stats, 1),
        },
        "storage_stats": {},
    })
}

fn cpu(sample: &Sample) -> Value {
    let stats = &sample.stats;
    json!({
        "cpu_usage": {
            "total_usage": stats.cpu_ns,
            "usage_in_usermode": stats.cpu_user_ns,
            "usage_in_kernelmode": stats.cpu_system_ns,
        },
        "system_cpu_usage": sample.machine_cpu_ns,
        "online_cpus": sample.cpus,
        "throttling_data": {
            "periods": stats.cpu_periods,
            "throttled_periods": stats.cpu_throttled_periods,
            "throttled_time": stats.cpu_throttled_ns,
        },
    })
}

/// Returns the bytes (0) or requests (1) of each block device; nothing where there are none, as Docker does.
fn blocks(stats: &Stats, which: usize) -> Option<Vec<Value>> {
    let entry = |block: &BlockStats, op: &str, counts: [u64; 2]| {
        let (major, minor) = block.device;
        json!({ "major": major, "minor": minor, "op": op, "value": counts[which] })
    };
    let both = |block: &BlockStats| [entry(block, "read", block.read), entry(block, "write", block.written)];
    (!stats.blocks.is_empty()).then(|| stats.blocks.iter().flat_map(both).collect())
}

fn show_network(network: &NetworkStats) -> Value {
    let ([rx_bytes, rx_packets, rx_errors, rx_dropped], [tx_bytes, tx_packets, tx_errors, tx_dropped]) =
        (network.received, network.sent);
    json!({
        "rx_bytes": rx_bytes, "rx_packets": rx_packets, "rx_errors": rx_errors, "rx_dropped": rx_dropped,
        "tx_bytes": tx_bytes, "tx_packets": tx_packets, "tx_errors": tx_errors, "tx_dropped": tx_dropped,
    })
}
