//! `shoal events`: what happens, as it happens.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::Value;

use super::logs::time;
use super::output::Output;
use crate::api::time::rfc3339;
use crate::client::{Client, encoded};

/// Longest line that is taken for one.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Which events to show.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Show those first that happened since a time (RFC 3339), or in so long, such as 10m. The node keeps the last 1,024.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// End at a time (RFC 3339), or so long ago: 0s shows what was and ends.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
    /// Show only those of a type, event, container, service, node, image, scope or label, such as type=service.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter)]
    filter: Vec<(String, String)>,
    /// Print each event as JSON.
    #[arg(long)]
    json: bool,
}

fn filter(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    pair.ok_or_else(|| format!("{text:?} is not a filter, expected one like type=service"))
}

pub(super) async fn run(args: &EventsArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut filters: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in &args.filter {
        filters.entry(key).or_default().push(value);
    }
    let mut path = format!("/events?filters={}", encoded(&serde_json::to_string(&filters)?));
    for (name, value) in [("since", &args.since), ("until", &args.until)] {
        if let Some(value) = value {
            path += &format!("&{name}={}", encoded(value));
        }
    }
    let mut body = client.open(&path).await?.into_body().into_data_stream();
    let mut waiting = Vec::new();
    while let Some(piece) = body.next().await {
        waiting.extend_from_slice(&piece.context("the connection to the node broke")?);
        anyhow::ensure!(waiting.len() <= LINE_BYTES_MAX, "the node's answer is not understood: a line has no end");
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = waiting.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).context("the node's answer is not understood")?;
            output.line(&if args.json { event.to_string() } else { words(&event) })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns an event as a line for people.
fn words(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attributes = event["Actor"]["Attributes"].as_object().into_iter().flatten();
    let attributes: Vec<String> = attributes.map(|(key, value)| format!("{key}={}", text(value))).collect();
    let time = rfc3339(event["timeNano"].as_u64().unwrap_or_default() / 1_000_000);
    let (kind, action, id) = (text(&event["Type"]), text(&event["Action"]), text(&event["Actor"]["ID"]));
    format!("{time} {kind} {action} {id} ({})", attributes.join(", "))
}
