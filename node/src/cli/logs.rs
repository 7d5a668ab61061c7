//! `shoal service logs` and `shoal logs`: what tasks print, wherever they run.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper::header;
use serde_json::Value;

use super::output::Output;
use super::words::parse_duration;
use crate::api::logs::NOTE_LABEL;
use crate::api::time::{parse_rfc3339, rfc3339};
use crate::client::{Client, encoded};

/// Longest frame that is taken for one.
const FRAME_BYTES_MAX: usize = 1 << 20;
const HEAD_BYTES: usize = 8;
/// Docker's number of standard error.
const STDERR: u8 = 2;
/// Characters of a task's id that are shown.
const ID_CHARS: usize = 12;

/// Which lines to show.
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// Go on with what is printed from now on.
    #[arg(short, long)]
    follow: bool,
    /// Show only the last lines of each task. Default: all that are kept.
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<u64>,
    /// Show only lines since a time (RFC 3339), or of so long, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// Show only lines before a time (RFC 3339), or older than so long.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
    /// Show when each line was printed.
    #[arg(short, long)]
    timestamps: bool,
}

/// How to show lines of a service.
#[derive(Clone, Debug, Args)]
pub struct ServiceLogsArgs {
    #[command(flatten)]
    lines: LogsArgs,
    /// Show ids in full.
    #[arg(long)]
    no_trunc: bool,
    /// Show no ids of tasks.
    #[arg(long)]
    no_task_ids: bool,
    /// Show the lines only, not whose they are.
    #[arg(long)]
    raw: bool,
    /// Which, by id or name of a service, or by id of a task.
    #[arg(value_name = "SERVICE|TASK")]
    of: String,
}

/// Reads a time of day or a duration until now, and returns it as RFC 3339.
pub(super) fn time(text: &str) -> Result<String, String> {
    if parse_rfc3339(text).is_some() {
        return Ok(text.to_owned());
    }
    let wrong = || format!("{text:?} is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 10m");
    let ago = parse_duration(text).map_err(|_| wrong())?;
    let then = SystemTime::now().checked_sub(ago).ok_or_else(wrong)?;
    let ms = then.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| wrong())?.as_millis();
    Ok(rfc3339(u64::try_from(ms).unwrap_or(u64::MAX)))
}

impl LogsArgs {
    fn query(&self) -> String {
        let mut query = format!("stdout=1&stderr=1&follow={}", u8::from(self.follow));
        let tail = self.tail.map(|lines| lines.to_string());
        for (name, value) in [("tail", &tail), ("since", &self.since), ("until", &self.until)] {
            if let Some(value) = value {
                query += &format!("&{name}={}", encoded(value));
            }
        }
        if self.timestamps {
            query += "&timestamps=1";
        }
        query
    }
}

/// `shoal logs`
pub(super) async fn one(of: &str, args: &LogsArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let path = format!("/containers/{}/logs?{}", encoded(of), args.query());
    read(client, &path, async |stream, text| Ok(write(stream, &[text])?)).await
}

/// `shoal service logs`
pub(super) async fn service(args: &ServiceLogsArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let name = encoded(&args.of);
    let is_service = match client.ask::<Value>(&format!("/services/{name}")).await {
        Ok(_) => true,
        Err(error) if error.is_status(404) => false,
        Err(error) => return Err(error.into()),
    };
    if !is_service && client.ask::<Value>(&format!("/tasks/{name}")).await.is_err() {
        bail!("there is no service and no task {}: `shoal service ls` lists the services", args.of);
    }
    let kind = if is_service { "services" } else { "tasks" };
    let path = format!("/{kind}/{name}/logs?details=1&{}", args.lines.query());
    let mut owners = Owners { args, client, names: BTreeMap::new() };
    read(client, &path, async |stream, text| {
        let parts = if args.lines.timestamps { 3 } else { 2 };
        let mut fields = text.splitn(parts, |byte| *byte == b' ');
        let time = if parts == 3 { fields.next() } else { None };
        let details = String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
        let line = fields.next().unwrap_or_default();
        if details.contains(NOTE_LABEL) {
            output.note(String::from_utf8_lossy(line).trim_end());
            return Ok(());
        }
        let space: &[u8] = if time.is_some() { b" " } else { b"" };
        let time = time.unwrap_or_default();
        if args.raw {
            return Ok(write(stream, &[time, space, line])?);
        }
        let owner = owners.of(&details).await?;
        Ok(write(stream, &[time, space, owner.as_bytes(), b"    | ", line])?)
    })
    .await
}

/// Names of tasks, as lines begin with them.
struct Owners<'a> {
    args: &'a ServiceLogsArgs,
    client: &'a Client,
    names: BTreeMap<String, String>,
}

impl Owners<'_> {
    /// Returns whose line this is, by its labels.
    async fn of(&mut self, details: &str) -> anyhow::Result<String> {
        let label = |name: &str| {
            let mut pairs = details.split(',').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let task = label("com.docker.swarm.task.id").context("a line of no task")?;
        if let Some(name) = self.names.get(&task) {
            return Ok(name.clone());
        }
        let (node, service) = (label("com.docker.swarm.node.id"), label("com.docker.swarm.service.id"));
        let node =
            self.text(&format!("/nodes/{}", node.clone().unwrap_or_default()), "/Description/Hostname", node).await;
        let service =
            self.text(&format!("/services/{}", service.clone().unwrap_or_default()), "/Spec/Name", service).await;
        let slot = self.client.ask::<Value>(&format!("/tasks/{task}")).await.ok();
        let slot = slot.and_then(|task| task["Slot"].as_i64()).map_or_else(|| node.clone(), |slot| slot.to_string());
        let id = if self.args.no_trunc { task.as_str() } else { task.get(..ID_CHARS).unwrap_or(&task) };
        let id = if self.args.no_task_ids { String::new() } else { format!(".{id}") };
        let name = format!("{service}.{slot}{id}@{node}");
        self.names.insert(task, name.clone());
        Ok(name)
    }

    async fn text(&self, path: &str, pointer: &str, otherwise: Option<String>) -> String {
        let found = self.client.ask::<Value>(path).await.ok();
        let text = found.and_then(|found| found.pointer(pointer).and_then(Value::as_str).map(str::to_owned));
        text.or(otherwise).unwrap_or_default()
    }
}

fn write(stream: u8, parts: &[&[u8]]) -> io::Result<()> {
    let text = parts.concat();
    if stream == STDERR {
        io::stderr().lock().write_all(&text)
    } else {
        let mut out = io::stdout().lock();
        out.write_all(&text)?;
        out.flush()
    }
}

/// Reads frames to the end, or until it is interrupted.
async fn read(
    client: &Client,
    path: &str,
    mut take: impl AsyncFnMut(u8, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let answer = client.open(path).await?;
    let is_raw =
        answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().ends_with(b"raw-stream"));
    let mut body = answer.into_body().into_data_stream();
    let mut frames = Frames::default();
    while let Some(piece) = body.next().await {
        let piece = piece.context("the connection to the node broke")?;
        if is_raw {
            take(1, &piece).await?;
            continue;
        }
        frames.bytes.extend_from_slice(&piece);
        while let Some((stream, text)) = frames.next()? {
            take(stream, &text).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes that are cut into frames.
#[derive(Default)]
pub(super) struct Frames {
    pub(super) bytes: Vec<u8>,
}

impl Frames {
    /// Returns the next frame that is complete.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<(u8, Vec<u8>)>> {
        let Some((&[stream, _, _, _, a, b, c, d], rest)) = self.bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        anyhow::ensure!(length <= FRAME_BYTES_MAX, "the node's answer is not understood: a line of {length} bytes");
        let Some(text) = rest.get(..length) else { return Ok(None) };
        let text = text.to_vec();
        self.bytes.drain(..HEAD_BYTES + length);
        Ok(Some((stream, text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let whole = b"\x01\0\0\0\0\0\0\x03one\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x02ab";
        for cut in 0..whole.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in [&whole[..cut], &whole[cut..]] {
                frames.bytes.extend_from_slice(piece);
                while let Some(frame) = frames.next().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, [(1, b"one".to_vec()), (2, Vec::new()), (1, b"ab".to_vec())], "{cut}");
        }
        let mut hostile = Frames { bytes: vec![0xff; 20] };
        assert!(hostile.next().is_err());
    }

    #[test]
    fn times_are_moments_or_durations() {
        assert_eq!(time("2026-01-01T00:00:00Z").unwrap(), "2026-01-01T00:00:00Z");
        assert!(time("10m").unwrap() < time("1s").unwrap());
        assert!(time("yesterday").unwrap_err().contains("10m"));
    }
}
