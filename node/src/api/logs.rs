//! `/services/{id}/logs`, `/tasks/{id}/logs`, `/containers/{id}/logs`: what tasks print, wherever they run, by time.
//!
//! On the wire as Docker has it: a frame for each line, of a header (stream, three zeros, length as u32 in big-endian)
//! and the text; without headers where there is a terminal. What cannot be read, because a node is down, is said by a
//! line on standard error with the label `shoal.note`; everything else goes on.

mod follow;
mod options;

use std::convert::Infallible;
use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use shoal_cluster::view::TaskView;
use shoal_cluster::{NodeId, ServiceId, TaskId};
use tokio::sync::mpsc;

use super::error::ApiError;
use super::params::{Params, Segment};
use super::spec::show_template;
use super::{NodeHandle, containers, lookup};
use follow::{Scope, follow};
use options::Options;

/// Batches of frames that wait for the client.
const WAITING_MAX: usize = 4;
/// The label of lines that are ours and not a task's.
pub const NOTE_LABEL: &str = "shoal.note";

/// Docker's numbers of the two streams.
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;

/// `GET /services/{id}/logs`
pub(super) async fn service(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
) -> Result<Response, ApiError> {
    let options = Options::read(&params)?;
    let views = node.views();
    let service = lookup::service(&views, &id)?;
    let tty = show_template(&service.spec).container_spec.is_some_and(|spec| spec.tty == Some(true));
    Ok(answer(node.clone(), Scope::Service(service.id), options, tty))
}

/// `GET /tasks/{id}/logs`
pub(super) async fn task(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
) -> Result<Response, ApiError> {
    let options = Options::read(&params)?;
    let task = lookup::task(&node.views(), &id)?.clone();
    of_task(node, &task, options).await
}

/// `GET /containers/{id}/logs`
pub(super) async fn container(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
) -> Result<Response, ApiError> {
    let options = Options::read(&params)?;
    let task = containers::find(&node, &id)?;
    of_task(node, &task, options).await
}

async fn of_task(node: NodeHandle, task: &TaskView, options: Options) -> Result<Response, ApiError> {
    // What is not there has a status of its own; and whether it has a terminal must be known before the first line.
    let details = containers::details(&node, task).await?;
    Ok(answer(node, Scope::Task(task.report.id), options, details.spec.tty))
}

fn answer(node: NodeHandle, scope: Scope, options: Options, tty: bool) -> Response {
    let (sender, frames) = mpsc::channel(WAITING_MAX);
    tokio::spawn(follow(node, scope, options, tty, sender));
    let stream = futures::stream::unfold(frames, |mut frames| async move {
        let frame: Bytes = frames.recv().await?;
        Some((Ok::<_, Infallible>(frame), frames))
    });
    ([(header::CONTENT_TYPE, content_type(tty))], Body::from_stream(stream)).into_response()
}

/// Returns Docker's name for the two forms of streams.
pub(super) fn content_type(tty: bool) -> &'static str {
    if tty { "application/vnd.docker.raw-stream" } else { "application/vnd.docker.multiplexed-stream" }
}

/// Whose a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    task: TaskId,
    node: NodeId,
    service: ServiceId,
}

impl From<&TaskView> for Owner {
    fn from(task: &TaskView) -> Self {
        Self { task: task.report.id, node: task.node, service: task.report.service }
    }
}

impl Owner {
    /// Returns the labels as Docker writes them before a line.
    fn details(&self, is_note: bool) -> String {
        let mut text = format!(
            "com.docker.swarm.node.id={},com.docker.swarm.service.id={},com.docker.swarm.task.id={}",
            self.node, self.service, self.task
        );
        if is_note {
            // Writing to a String cannot fail.
            let _ = write!(text, ",{NOTE_LABEL}=1");
        }
        text
    }
}

/// Appends one frame; without a header if there is a terminal.
pub(super) fn frame(out: &mut BytesMut, stream: u8, tty: bool, parts: &[&[u8]]) {
    if !tty {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        out.put_slice(&[stream, 0, 0, 0]);
        out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    }
    parts.iter().for_each(|part| out.put_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_dockers_header_and_the_text() {
        let mut out = BytesMut::new();
        frame(&mut out, STDERR, false, &[b"2026 ", b"hello\n"]);
        assert_eq!(&out[..], b"\x02\0\0\0\0\0\0\x0b2026 hello\n");
        out.clear();
        frame(&mut out, STDOUT, true, &[b"hello\n"]);
        assert_eq!(&out[..], b"hello\n");
    }
}
