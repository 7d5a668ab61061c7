//! What is done to a container of a task: signals, its end, waiting for it, its processes.
//!
//! A task that ends is followed by another as its service's restart policy says, as in Swarm.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::FutureExt;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shoal_runtime::container::{ContainerProcess, Exit};
use tokio::time::timeout;

use super::{ask, find, unexpected};
use crate::api::NodeHandle;
use crate::api::error::{ApiError, shown};
use crate::api::params::{Params, Segment};
use crate::reach::{Answer, Question};

/// The highest number of a signal, real-time signals included.
const SIGNAL_MAX: i32 = 64;
/// How soon an answer comes whole, with the status that goes with it.
const AT_ONCE: Duration = Duration::from_millis(50);
/// The exit status of a container whose node was lost.
const NOT_KNOWN: i32 = 255;
/// The grace of a client that wants to wait for ever.
const FOR_EVER_S: u64 = 24 * 60 * 60;

/// `POST /containers/{id}/kill?signal=NAME`
pub(in crate::api) async fn kill(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
) -> Result<StatusCode, ApiError> {
    let signal = signal(&params)?.unwrap_or(Signal::SIGKILL as i32);
    let task = find(&node, &id)?;
    ask(&node, &task, Question::Signal(signal)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/stop?signal=NAME&t=SECONDS`
pub(in crate::api) async fn stop(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
) -> Result<StatusCode, ApiError> {
    let grace_s = match params.text("t") {
        None => None,
        Some("-1") => Some(FOR_EVER_S),
        Some(_) => Some(params.number("t")?),
    };
    let question = Question::Stop { signal: signal(&params)?, grace_ms: grace_s.map(|s| s.saturating_mul(1_000)) };
    let task = find(&node, &id)?;
    if task.report.state.is_final() {
        return Ok(StatusCode::NOT_MODIFIED);
    }
    ended(ask(&node, &task, question).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/wait`: Docker's client goes on once it has the head of the answer, so that comes before the end.
pub(in crate::api) async fn wait(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
) -> Result<Response, ApiError> {
    if let Some(condition) = params.text("condition").filter(|condition| *condition != "not-running") {
        return Err(ApiError::NotSupported(format!("waiting until a container is {}", shown(condition))));
    }
    let task = find(&node, &id)?;
    let mut exit = async move { ended(ask(&node, &task, Question::Wait).await?) }.boxed();
    if let Ok(exit) = timeout(AT_ONCE, &mut exit).await {
        return Ok(Json(waited(exit?.code, None)).into_response());
    }
    let said = async move {
        let said = match exit.await {
            Ok(exit) => waited(exit.code, None),
            Err(error) => waited(NOT_KNOWN, Some(error.to_string())),
        };
        Ok::<_, Infallible>(Bytes::from(said.to_string()))
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(said.into_stream())).into_response())
}

/// Says how a container ended, or why that is not known.
fn waited(code: i32, error: Option<String>) -> Value {
    match error {
        None => json!({ "StatusCode": code }),
        Some(message) => json!({ "StatusCode": code, "Error": { "Message": message } }),
    }
}

/// `GET /containers/{id}/top`
pub(in crate::api) async fn top(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    if let Some(wanted) = params.text("ps_args").filter(|wanted| *wanted != "-ef") {
        return Err(ApiError::NotSupported(format!("docker top with options of ps ({})", shown(wanted))));
    }
    let task = find(&node, &id)?;
    match ask(&node, &task, Question::Processes).await? {
        Answer::Processes(processes) => Ok(Json(json!({
            "Titles": ["UID", "PID", "PPID", "RSS", "TIME", "CMD"],
            "Processes": processes.iter().map(row).collect::<Vec<_>>(),
        }))),
        Answer::Details(_) | Answer::Sample(_) | Answer::Done | Answer::Ended(_) => Err(unexpected()),
    }
}

fn row(process: &ContainerProcess) -> [String; 6] {
    let seconds = process.cpu_ms / 1_000;
    [
        process.uid.to_string(),
        process.pid.to_string(),
        process.parent.to_string(),
        (process.memory_bytes / 1_024).to_string(),
        format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60),
        process.command.clone(),
    ]
}

fn ended(answer: Answer) -> Result<Exit, ApiError> {
    match answer {
        Answer::Ended(exit) => Ok(exit),
        Answer::Details(_) | Answer::Sample(_) | Answer::Processes(_) | Answer::Done => Err(unexpected()),
    }
}

/// Reads a signal by number or name, with or without `SIG`.
fn signal(params: &Params) -> Result<Option<i32>, ApiError> {
    let Some(text) = params.text("signal") else { return Ok(None) };
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let number = text.parse().ok().filter(|number| (1..=SIGNAL_MAX).contains(number));
    let number = number.or_else(|| name.parse::<Signal>().ok().map(|signal| signal as i32));
    let wrong = || ApiError::BadRequest(format!("invalid signal: {}", shown(text)));
    number.map(Some).ok_or_else(wrong)
}
