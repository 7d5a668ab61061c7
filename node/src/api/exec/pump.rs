//! Bytes between a client's connection and the session of a command.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{Detach, said};
use crate::api::logs::{STDERR, STDOUT, frame};
use crate::reach::{Input, Output, PIECE_BYTES_MAX, Session};

/// The exit status of a command whose node was lost, as with `ssh`.
pub(super) const LOST: i32 = 255;
/// How long a new size may wait behind input that is not taken.
pub(super) const RESIZE_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads away what a command prints, and returns its exit status.
pub(super) async fn discard(output: &mut mpsc::Receiver<Output>) -> i32 {
    while let Some(output) = output.recv().await {
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

/// How a client is connected with a process.
#[derive(Clone, Debug)]
pub(in crate::api) struct Manner {
    /// Whether by a terminal.
    pub(in crate::api) tty: bool,
    /// Whether it types.
    pub(in crate::api) has_input: bool,
    /// What lets go of a terminal.
    pub(in crate::api) detach: Detach,
    /// Whether the session has to stay when the client lets go, because the process would lose its terminal.
    pub(in crate::api) stays: bool,
}

/// Carries both directions over a connection that was taken over, until the command's end, the client's loss or its letting
/// go. `ended` is told the exit status before the client can know.
pub(super) async fn upgraded(upgrade: OnUpgrade, session: Session, manner: Manner, ended: impl Fn(i32)) {
    let Ok(upgraded) = upgrade.await else { return ended(LOST) };
    let Manner { tty, has_input, detach, stays } = manner;
    let (reading, mut writing) = tokio::io::split(TokioIo::new(upgraded));
    let Session { input, mut output, .. } = session;
    // A terminal whose operator is gone is hung up; a pipe that has ended still wants the answer.
    let hangs_up = tty && has_input;
    let mut hearing = tokio::spawn(hear(reading, input, has_input, tty.then_some(detach)));
    let code = loop {
        let received = tokio::select! {
            received = output.recv() => received,
            lets_go = &mut hearing, if hangs_up => {
                if stays && lets_go.unwrap_or_default() {
                    let _ = writing.shutdown().await;
                    break discard(&mut output).await;
                }
                break LOST;
            }
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
}

/// Hands input on until its end, which is that of the client's half of the connection, or the keys that let go of a terminal:
/// tells whether it was these.
async fn hear(
    mut reading: impl AsyncRead + Unpin,
    input: mpsc::Sender<Input>,
    has_input: bool,
    mut detach: Option<Detach>,
) -> bool {
    let mut lets_go = false;
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    loop {
        match reading.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            // Nobody waits for it.
            Ok(_) if !has_input => {}
            Ok(read) => {
                let typed = &buffer[..read];
                let piece;
                (piece, lets_go) = match &mut detach {
                    Some(detach) => detach.pass(typed),
                    None => (typed.to_vec(), false),
                };
                // A command that has ended takes no more; its output may still be on its way.
                let _ = input.send(Input::Piece(piece.into())).await;
                if lets_go {
                    break;
                }
            }
        }
    }
    let _ = input.send(Input::End).await;
    lets_go
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
