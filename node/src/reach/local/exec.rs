//! A command in one of this node's containers: its streams carried to and from a session.

use std::time::Duration;

use bytes::Bytes;
use shoal_runtime::container::{Exec, ExecTerminal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::{Input, Output, PIECE_BYTES_MAX, Session, WAITING_MAX};

/// A stream that stays open after the command's end, because a child of it has it, is given up after this silence.
const ORPHAN_SILENCE: Duration = Duration::from_millis(200);

/// Carries the streams until the command has ended or nobody listens any more.
pub(super) fn carry(exec: Exec) -> Session {
    let (input, received) = mpsc::channel(WAITING_MAX);
    let (sender, output) = mpsc::channel(WAITING_MAX);
    let Exec { pid, stdin, stdout, stderr, terminal, mut end } = exec;
    let feeding = tokio::spawn(feed(stdin, terminal, received));
    let ended = CancellationToken::new();
    tokio::spawn(async move {
        let carrying = async {
            let out = pump(stdout, &sender, Output::Out, &ended);
            let err = async {
                if let Some(stderr) = stderr {
                    pump(stderr, &sender, Output::Err, &ended).await;
                }
            };
            let exit = async {
                let exit = end.exit().await;
                ended.cancel();
                exit
            };
            let ((), (), exit) = tokio::join!(out, err, exit);
            // Nobody needs to know if nobody listens.
            let _ = sender.send(Output::Exit(exit.code)).await;
        };
        tokio::select! {
            () = carrying => {}
            () = sender.closed() => {}
        }
        feeding.abort();
    });
    Session { pid, input, output }
}

/// Hands input on, and holds input and terminal open until told otherwise.
async fn feed(stdin: pipe::Sender, terminal: ExecTerminal, mut received: mpsc::Receiver<Input>) {
    let mut stdin = Some(stdin);
    let has_terminal = terminal.is_some();
    while let Some(input) = received.recv().await {
        match input {
            Input::Piece(piece) => {
                let failed = match &mut stdin {
                    Some(stdin) => stdin.write_all(&piece).await.is_err(),
                    None => false,
                };
                if failed {
                    stdin = None;
                }
            }
            // The end of a terminal is typed, not closed.
            Input::End if has_terminal => {}
            Input::End => stdin = None,
            // One that is gone has no size.
            Input::Resize(size) => drop(terminal.resize(size)),
        }
    }
    drop(stdin);
    if has_terminal {
        // Who only listens keeps the terminal; it is hung up when the session ends.
        std::future::pending::<()>().await;
    }
}

/// Hands output on until its end; after the command's end, until there is no more.
async fn pump(
    mut stream: impl AsyncRead + Unpin,
    sender: &mpsc::Sender<Output>,
    wrap: fn(Bytes) -> Output,
    ended: &CancellationToken,
) {
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    loop {
        let read = tokio::select! {
            biased;
            read = stream.read(&mut buffer) => read,
            () = async { ended.cancelled().await; tokio::time::sleep(ORPHAN_SILENCE).await } => return,
        };
        match read {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                if sender.send(wrap(Bytes::copy_from_slice(&buffer[..read]))).await.is_err() {
                    return;
                }
            }
        }
    }
}
