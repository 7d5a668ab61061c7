//! Bytes between a client's connection and the session of a command.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::said;
use crate::api::logs::{STDERR, STDOUT, frame};
use crate::reach::{Input, Output, PIECE_BYTES_MAX, Session};

/// The exit status of a command whose node was lost, as with `ssh`.
pub(super) const LOST: i32 = 255;
/// How long a new size may wait behind input that is not taken.
pub(super) const RESIZE_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads away what a command prints, and returns its exit status.
pub(super) async fn discard(session: &mut Session) -> i32 {
    while let Some(output) = session.output.recv().await {
        if let Output::Exit(code) = output {
            return code;
        }
    }
    LOST
}

/// Returns a piece of output as the client gets it, or the exit status.
fn rendered(output: Option<Output>, tty: bool) -> Result<Bytes, Option<i32>> {
    let (stream, piece) = match output {
        Some(Output::Out(piece)) => (STDOUT, piece),
        Some(Output::Err(piece)) => (STDERR, piece),
        Some(Output::Exit(code)) => return Err(Some(code)),
        None => return Err(None),
    };
    let mut out = BytesMut::new();
    frame(&mut out, stream, tty, &[&piece]);
    Ok(out.freeze())
}

/// What is said when the node is lost.
fn lost(tty: bool) -> Bytes {
    said("shoal: the node of this task was lost, or the way to it; the command may still run\r\n", tty)
}

/// Carries both directions over a connection that was taken over, until the command's end or the client's loss, and
/// returns the exit status. `ended` is told it before the client can know.
pub(super) async fn upgraded(
    upgrade: OnUpgrade,
    session: Session,
    tty: bool,
    has_input: bool,
    ended: impl Fn(i32),
) -> i32 {
    let Ok(upgraded) = upgrade.await else { return LOST };
    let (reading, mut writing) = tokio::io::split(TokioIo::new(upgraded));
    let Session { input, mut output, .. } = session;
    // A terminal whose operator is gone is hung up; a pipe that has ended still wants the answer.
    let hangs_up = tty && has_input;
    let mut hearing = tokio::spawn(hear(reading, input, has_input));
    let code = loop {
        let received = tokio::select! {
            received = output.recv() => received,
            _ = &mut hearing, if hangs_up => break LOST,
        };
        let bytes = match rendered(received, tty) {
            Ok(bytes) => bytes,
            Err(Some(code)) => break code,
            Err(None) => {
                // Whoever is gone need not be told.
                let _ = writing.write_all(&lost(tty)).await;
                break LOST;
            }
        };
        if writing.write_all(&bytes).await.and(writing.flush().await).is_err() {
            break LOST;
        }
    };
    ended(code);
    let _ = writing.shutdown().await;
    hearing.abort();
    code
}

/// Hands input on until its end, which is the client's half of the connection.
async fn hear(mut reading: impl AsyncRead + Unpin, input: mpsc::Sender<Input>, has_input: bool) {
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    loop {
        match reading.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            // Nobody waits for it.
            Ok(_) if !has_input => {}
            Ok(read) => {
                // A command that has ended takes no more; its output may still be on its way.
                let _ = input.send(Input::Piece(Bytes::copy_from_slice(&buffer[..read]))).await;
            }
        }
    }
    let _ = input.send(Input::End).await;
}

/// Returns the output alone, for clients that do not take over the connection.
pub(super) fn body(
    session: Session,
    tty: bool,
    ended: impl Fn(i32) + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    futures::stream::unfold(Some((session, ended)), move |state| async move {
        let (mut session, ended) = state?;
        match rendered(session.output.recv().await, tty) {
            Ok(bytes) => Some((Ok(bytes), Some((session, ended)))),
            Err(Some(code)) => {
                ended(code);
                None
            }
            Err(None) => {
                ended(LOST);
                Some((Ok(lost(tty)), None))
            }
        }
    })
}
