//! Telemetry: how the node tells operators what happens, as log lines for people or for machines.

use std::io::IsTerminal;

use shoal_cluster::Event;
use tracing_subscriber::EnvFilter;

use crate::cli::up::LogFormat;

/// Always quiet: libraries that say something at every query or packet.
const QUIET: &str = "hickory_server=warn,hickory_proto=error,libp2p_swarm=warn,libp2p_core=warn,libp2p_tcp=warn,netlink_proto=warn,netlink_packet_route=error,yamux=warn,multistream_select=warn";

/// Starts logging to standard error. `level` is a filter such as `info` or `shoal=debug,info`.
pub fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{level}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Human => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// Writes the log line of one event of the core.
pub fn notify(event: &Event) {
    match event {
        Event::NodeUp(node) => tracing::info!(%node, "node is up"),
        Event::NodeSuspect(node) => tracing::info!(%node, "node is suspected: it missed probes"),
        Event::NodeDown(node) => tracing::warn!(%node, "node is down"),
        Event::NodeLeft(node) => tracing::info!(%node, "node has left"),
        Event::Refuted(incarnation) => tracing::info!(incarnation, "refuted a suspicion against this node"),
        Event::MessageDropped { from, reason } => tracing::warn!(%from, reason, "dropped a message"),
        Event::BlockLost { to } => tracing::warn!(%to, "this node's IPv4 block went to another; taking a new one"),
        Event::TaskFailed { id, retry_ms } => tracing::warn!(task = %id, retry_ms, "task failed"),
        Event::Settled => tracing::info!("settled: this node acts"),
    }
}
