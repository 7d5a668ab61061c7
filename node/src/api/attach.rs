//! `/containers/{id}/attach`: the streams of a task's own process, on whichever node it runs.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use shoal_cluster::TaskId;
use shoal_cluster::reports::task::TaskState;
use tokio::sync::mpsc;

use super::error::ApiError;
use super::exec::{self, Detach, Manner};
use super::params::{Params, Segment};
use super::{NodeHandle, containers};
use crate::reach::{Answer, AttachAsk, Input, LogAsk, Output, Question, Said, Session};

/// Pieces that wait between a task and its reader.
const WAITING_MAX: usize = 4;

/// Which of a task's output a client wants.
#[derive(Clone, Copy)]
struct Wanted {
    stdout: bool,
    stderr: bool,
}

/// `POST /containers/{id}/attach?logs&stream&stdin&stdout&stderr&detachKeys`
pub(super) async fn attach(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
    mut request: Request,
) -> Result<Response, ApiError> {
    let upgrade = exec::takes_over(&mut request);
    let detach = Detach::read(params.text("detachKeys"))?;
    let task = containers::find(&node, &id)?;
    let report = &task.report;
    if !matches!(report.state, TaskState::Running | TaskState::Stopping) {
        return Err(ApiError::Conflict(format!("container {} is not running", report.id)));
    }
    let there = (node.reach)(task.node);
    let tty = match there.ask(report.id, Question::Details).await? {
        Answer::Details(details) => details.spec.tty,
        _ => return Err(ApiError::Internal("its node gave an answer to another question".to_owned())),
    };
    let wanted = Wanted { stdout: params.flag("stdout"), stderr: params.flag("stderr") };
    let has_input = params.flag("stdin");
    // Joined before its log is read, so that nothing is missed between the two.
    let session = match params.flag("stream") {
        true => Some(there.attach(AttachAsk { task: report.id, stdin: has_input }).await?),
        false => None,
    };
    if let Some(session) = session.as_ref().filter(|_| !has_input || upgrade.is_none()) {
        // It may have ended.
        let _ = session.input.send(Input::End).await;
    }
    let logs = params.flag("logs").then(|| there.logs(all_so_far(report.id, wanted)));
    let session = shown(logs, session, wanted);
    Ok(exec::answer(upgrade, session, Manner { tty, has_input, detach, stays: false }, |_| {}))
}

fn all_so_far(task: TaskId, wanted: Wanted) -> LogAsk {
    let Wanted { stdout, stderr } = wanted;
    LogAsk { tasks: vec![task], tail: None, since: None, until: None, stdout, stderr, follow: false }
}

/// Returns the session of what a client wants to see: what the log has, then what comes.
fn shown(logs: Option<mpsc::Receiver<Said>>, session: Option<Session>, wanted: Wanted) -> Session {
    let (sender, output) = mpsc::channel(WAITING_MAX);
    let (pid, input, live) = match session {
        Some(Session { pid, input, output }) => (pid, input, Some(output)),
        None => (0, mpsc::channel(1).0, None),
    };
    tokio::spawn(async move {
        // An error means that nobody listens any more.
        if let Some(logs) = logs {
            tell_logs(logs, &sender).await?;
        }
        match live {
            Some(mut live) => {
                while let Some(piece) = live.recv().await {
                    let is_wanted = match &piece {
                        Output::Out(_) => wanted.stdout,
                        Output::Err(_) => wanted.stderr,
                        Output::Exit(_) => true,
                    };
                    if is_wanted {
                        sender.send(piece).await?;
                    }
                }
                Ok(())
            }
            None => sender.send(Output::Exit(0)).await,
        }
    });
    Session { pid, input, output }
}

async fn tell_logs(
    mut logs: mpsc::Receiver<Said>,
    sender: &mpsc::Sender<Output>,
) -> Result<(), mpsc::error::SendError<Output>> {
    while let Some(said) = logs.recv().await {
        match said {
            Said::Lines(lines) => {
                for line in lines.into_iter().map(|line| line.line) {
                    let (is_error, text) = (line.stream == "stderr", Bytes::from(line.log));
                    sender.send(if is_error { Output::Err(text) } else { Output::Out(text) }).await?;
                }
            }
            Said::Missing(_, error) | Said::Failed(error) => {
                let text = format!("shoal: its log cannot be read: {error}\r\n");
                sender.send(Output::Err(text.into())).await?;
            }
            Said::Quiet(_) => {}
        }
    }
    Ok(())
}

/// `POST /containers/{id}/resize?h=ROWS&w=COLUMNS`
pub(super) async fn resize(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
) -> Result<StatusCode, ApiError> {
    let size = exec::size(&params)?;
    let task = containers::find(&node, &id)?;
    (node.reach)(task.node).ask(task.report.id, Question::Resize(size)).await?;
    Ok(StatusCode::OK)
}
