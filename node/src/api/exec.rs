//! `/containers/{id}/exec` and `/exec/{id}`: further commands in the containers of tasks, on whichever node they run.
//!
//! A command is announced, started, and asked for its exit status, as Docker has it. What was announced is kept by
//! the node that was asked, in memory, in bounded number, and forgotten a while after its end.

mod detach;
mod instances;
mod pump;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use hyper::upgrade::OnUpgrade;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shoal_cluster::reports::task::TaskState;
use shoal_runtime::container::{ExecSpec, WindowSize};
use tokio::sync::mpsc;

use super::body::Parsed;
use super::error::ApiError;
use super::logs::{STDERR, content_type, frame};
use super::params::{Params, Segment};
use super::{NodeHandle, containers};
use crate::reach::{ExecAsk, Input, ReachError, Session};
pub use detach::Detach;
use instances::Instance;
pub use instances::Instances;
pub(super) use pump::Manner;

/// What a client announces.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Announced {
    user: Option<String>,
    privileged: bool,
    tty: bool,
    console_size: Option<[u16; 2]>,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    detach: bool,
    detach_keys: Option<String>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    cmd: Option<Vec<String>>,
}

/// How a client starts it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Start {
    detach: bool,
    tty: bool,
    console_size: Option<[u16; 2]>,
}

fn window([rows, columns]: [u16; 2]) -> WindowSize {
    WindowSize { rows, columns }
}

/// `POST /containers/{id}/exec`
pub(super) async fn create(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    Parsed(announced): Parsed<Announced>,
) -> Result<Response, ApiError> {
    let task = containers::find(&node, &id)?;
    let report = &task.report;
    if !matches!(report.state, TaskState::Running | TaskState::Stopping) {
        return Err(ApiError::Conflict(format!("container {} is not running", report.id)));
    }
    let detach = Detach::read(announced.detach_keys.as_deref())?;
    let args = announced.cmd.unwrap_or_default();
    if args.is_empty() {
        return Err(ApiError::BadRequest("No exec command specified".to_owned()));
    }
    let spec = ExecSpec {
        args,
        env: announced.env.unwrap_or_default(),
        cwd: announced.working_dir.unwrap_or_default(),
        user: announced.user.unwrap_or_default(),
        tty: announced.tty,
        privileged: announced.privileged,
    };
    let ask = ExecAsk { task: report.id, spec, size: announced.console_size.map(window) };
    let has_output = announced.attach_stdout || announced.attach_stderr;
    let id = node.execs.announce(Instance::new(task.node, ask, (announced.attach_stdin, has_output), detach))?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id }))).into_response())
}

/// `POST /exec/{id}/start`
pub(super) async fn start(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    mut request: Request,
) -> Result<Response, ApiError> {
    let upgrade = takes_over(&mut request);
    let Parsed(start) = Parsed::<Start>::from_request(request, &()).await?;
    let (on, mut ask, has_input, detach) = node.execs.take(&id)?;
    ask.size = start.console_size.map(window).or(ask.size);
    let tty = ask.spec.tty;
    let mut session = match (node.reach)(on).exec(ask).await {
        Ok(session) => session,
        // As Docker does: a command that cannot be run has said so, and has an exit status.
        Err(ReachError::NotRun { exit_code, message }) if !start.detach => failed(exit_code, &message),
        Err(error) => {
            node.execs.ended(&id, pump::LOST);
            return Err(error.into());
        }
    };
    node.execs.runs(&id, session.pid, session.input.clone());
    if start.detach || !has_input || upgrade.is_none() {
        // It may have ended.
        let _ = session.input.send(Input::End).await;
    }
    if start.detach {
        tokio::spawn(async move {
            let code = pump::discard(&mut session.output).await;
            node.execs.ended(&id, code);
        });
        return Ok(StatusCode::OK.into_response());
    }
    Ok(answer(upgrade, session, Manner { tty, has_input, detach, stays: true }, move |code| {
        node.execs.ended(&id, code)
    }))
}

/// Takes the connection out of a request whose client wants it for itself.
pub(super) fn takes_over(request: &mut Request) -> Option<OnUpgrade> {
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    upgrade.filter(|_| request.headers().contains_key(header::UPGRADE))
}

/// Returns the answer that carries a session: over the connection that was taken over, or its output alone as the body.
pub(super) fn answer(
    upgrade: Option<OnUpgrade>,
    session: Session,
    manner: Manner,
    ended: impl Fn(i32) + Send + 'static,
) -> Response {
    let tty = manner.tty;
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(content_type(tty)))];
    match upgrade {
        Some(upgrade) => {
            tokio::spawn(pump::upgraded(upgrade, session, manner, ended));
            let switch = [
                (header::CONNECTION, HeaderValue::from_static("Upgrade")),
                (header::UPGRADE, HeaderValue::from_static("tcp")),
            ];
            (StatusCode::SWITCHING_PROTOCOLS, switch, kind).into_response()
        }
        None => (kind, Body::from_stream(pump::body(session, tty, ended))).into_response(),
    }
}

/// Returns the session of a command that could not be run: it says why, and ends.
fn failed(exit_code: i32, message: &str) -> Session {
    let (input, _) = mpsc::channel(1);
    let (sender, output) = mpsc::channel(2);
    let text = Bytes::from(format!("shoal: {message}\r\n"));
    // There is room for both.
    let _ = sender.try_send(crate::reach::Output::Err(text));
    let _ = sender.try_send(crate::reach::Output::Exit(exit_code));
    Session { pid: 0, input, output }
}

/// `POST /exec/{id}/resize?h=ROWS&w=COLUMNS`
pub(super) async fn resize(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
) -> Result<StatusCode, ApiError> {
    let size = size(&params)?;
    let input = node.execs.input(&id)?;
    // A command that takes no input for so long does not look at its size either.
    let _ = tokio::time::timeout(pump::RESIZE_TIMEOUT, input.send(Input::Resize(size))).await;
    Ok(StatusCode::OK)
}

/// Reads the size of a terminal.
pub(super) fn size(params: &Params) -> Result<WindowSize, ApiError> {
    let number = |name| {
        let number = params.number(name)?;
        u16::try_from(number).map_err(|_| ApiError::BadRequest(format!("invalid {name} {number}: at most 65535")))
    };
    Ok(WindowSize { rows: number("h")?, columns: number("w")? })
}

/// `GET /exec/{id}/json`
pub(super) async fn inspect(State(node): State<NodeHandle>, Segment(id): Segment) -> Result<Json<Value>, ApiError> {
    node.execs.show(&id).map(Json)
}

/// Returns a text as a frame on standard error, or plainly where there is a terminal.
fn said(text: &str, tty: bool) -> Bytes {
    let mut out = BytesMut::new();
    frame(&mut out, STDERR, tty, &[text.as_bytes()]);
    out.freeze()
}
