//! `shoal stats`: what tasks use, asked of the nodes that run them.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use futures::StreamExt;
use serde_json::Value;

use super::output::Output;
use super::table::table;
use super::words::size;
use crate::client::{Client, encoded};

/// Tasks that are asked at once.
const ASKED_AT_ONCE: usize = 32;

/// Which tasks to show.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Show the tasks of all nodes. Default: those of this node.
    #[arg(short, long)]
    all: bool,
    /// Show the tasks of this service only, on all nodes.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
}

/// One task.
struct Row {
    id: String,
    name: String,
    node: String,
}

pub(super) async fn run(args: &StatsArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let rows = tasks(args, client).await?;
    output.progress(&format!("measuring {} tasks for a second…", rows.len()));
    let shown = rows.into_iter().map(|row| async move {
        let path = format!("/containers/{}/stats?stream=0", encoded(&row.id));
        let cells = match client.ask::<Value>(&path).await {
            Ok(sample) => cells(&sample),
            Err(error) => [error.to_string(), String::new(), String::new(), String::new(), String::new()],
        };
        let [cpu, memory, net, block, pids] = cells;
        [row.name, row.node, cpu, memory, net, block, pids]
    });
    let shown: Vec<[String; 7]> = futures::stream::iter(shown).buffered(ASKED_AT_ONCE).collect().await;
    for line in table(["NAME", "NODE", "CPU %", "MEM USAGE / LIMIT", "NET I/O", "BLOCK I/O", "PIDS"], &shown) {
        output.line(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn tasks(args: &StatsArgs, client: &Client) -> anyhow::Result<Vec<Row>> {
    let mut filters = BTreeMap::from([("desired-state", vec!["running".to_owned()])]);
    if let Some(service) = &args.service {
        filters.insert("service", vec![service.clone()]);
    } else if !args.all {
        filters.insert("node", vec!["self".to_owned()]);
    }
    let filters = encoded(&serde_json::to_string(&filters)?);
    let tasks: Vec<Value> = client.ask(&format!("/tasks?filters={filters}")).await?;
    let named = async |path: &str, pointer: &'static str| -> anyhow::Result<BTreeMap<String, String>> {
        let all: Vec<Value> = client.ask(path).await?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(all.iter().map(|item| (text(item.get("ID")), text(item.pointer(pointer)))).collect())
    };
    let services = named("/services", "/Spec/Name").await?;
    let nodes = named("/nodes", "/Description/Hostname").await?;
    let running = tasks.iter().filter(|task| task["Status"]["State"] == "running");
    let mut rows: Vec<Row> = running
        .map(|task| {
            let name_in = |names: &BTreeMap<String, String>, key: &str| {
                let id = task[key].as_str().unwrap_or_default();
                names.get(id).cloned().unwrap_or_else(|| id.to_owned())
            };
            let node = name_in(&nodes, "NodeID");
            let slot = task["Slot"].as_u64().map_or_else(|| node.clone(), |slot| slot.to_string());
            let name = format!("{}.{slot}", name_in(&services, "ServiceID"));
            Row { id: task["ID"].as_str().unwrap_or_default().to_owned(), name, node }
        })
        .collect();
    rows.sort_by(|one, two| (&one.name, &one.node).cmp(&(&two.name, &two.node)));
    Ok(rows)
}

/// Returns processor, memory, network, block devices and processes, as Docker's client computes and writes them.
fn cells(sample: &Value) -> [String; 5] {
    let number = |pointer: &str| sample.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let grown =
        |name: &str| number(&format!("/cpu_stats/{name}")).saturating_sub(number(&format!("/precpu_stats/{name}")));
    let machine = grown("system_cpu_usage").max(1);
    let hundredths = u128::from(grown("cpu_usage/total_usage")) * u128::from(number("/cpu_stats/online_cpus")) * 10_000
        / u128::from(machine);
    let used = number("/memory_stats/usage").saturating_sub(number("/memory_stats/stats/inactive_file"));
    let networks = sample["networks"].as_object().into_iter().flatten();
    let (received, sent) = networks.fold((0, 0), |(received, sent), (_, network)| {
        let bytes = |name: &str| network[name].as_u64().unwrap_or_default();
        (received + bytes("rx_bytes"), sent + bytes("tx_bytes"))
    });
    let blocks = |op: &str| -> u64 {
        let all = sample["blkio_stats"]["io_service_bytes_recursive"].as_array().into_iter().flatten();
        all.filter(|block| block["op"] == op).filter_map(|block| block["value"].as_u64()).sum()
    };
    [
        format!("{}.{:02}%", hundredths / 100, hundredths % 100),
        format!("{} / {}", size(used), size(number("/memory_stats/limit"))),
        format!("{} / {}", size(received), size(sent)),
        format!("{} / {}", size(blocks("read")), size(blocks("write"))),
        number("/pids_stats/current").to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shares_are_of_one_processor_as_dockers() {
        let sample = json!({
            "cpu_stats": { "cpu_usage": { "total_usage": 600 }, "system_cpu_usage": 4_000, "online_cpus": 2 },
            "precpu_stats": { "cpu_usage": { "total_usage": 100 }, "system_cpu_usage": 2_000 },
            "memory_stats": { "usage": 5_000_000, "stats": { "inactive_file": 1_000_000 }, "limit": 64_000_000 },
            "networks": { "eth0": { "rx_bytes": 1_000, "tx_bytes": 2_000 } },
            "blkio_stats": { "io_service_bytes_recursive": [
                { "major": 8, "minor": 0, "op": "read", "value": 3_000 },
                { "major": 8, "minor": 16, "op": "read", "value": 1_000 },
                { "major": 8, "minor": 0, "op": "write", "value": 7_000 },
            ] },
            "pids_stats": { "current": 3 },
        });
        assert_eq!(cells(&sample), ["50.00%", "4MB / 64MB", "1kB / 2kB", "4kB / 7kB", "3"]);
        assert_eq!(cells(&json!({}))[0], "0.00%");
    }
}
