//! A command in one of this node's containers, or a task's own process: its streams carried to and from a session.

use std::time::Duration;

use bytes::Bytes;
use shoal_runtime::container::{Exec, ExecOutput, ExecTerminal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::{Input, Output, PIECE_BYTES_MAX, Session, WAITING_MAX};

/// The exit status of a task that ended without telling how, as if it was killed.
pub(super) const KILLED: i32 = 137;
/// A stream that stays open after the command's end, because a child of it has it, is given up after this silence.
const ORPHAN_SILENCE: Duration = Duration::from_millis(200);
/// How long after the end of a task's streams its own end is waited for.
const LAST_WORD: Duration = Duration::from_secs(2);
/// What is said where the streams of a task that runs on are at their end.
const NO_MORE: &str =
    "shoal: no more output comes here: it came faster than it was read, or the task closed it; its log has all\r\n";

/// The streams of a process.
struct Streams {
    stdin: Option<pipe::Sender>,
    stdout: ExecOutput,
    stderr: Option<ExecOutput>,
    /// Of a command that was begun here. A task's own process keeps its terminal, and its streams may end before it does.
    terminal: Option<ExecTerminal>,
}

/// Carries the streams of a command until it has ended or nobody listens any more.
pub(super) fn carry(exec: Exec) -> Session {
    let Exec { pid, stdin, stdout, stderr, terminal, mut end } = exec;
    let streams = Streams { stdin: Some(stdin), stdout, stderr, terminal: Some(terminal) };
    streams.carry(pid, async move { end.exit().await.code })
}

/// Carries the streams of a task's own process, which goes on when nobody listens any more; `end` is its exit status.
pub(super) fn join(
    pid: i32,
    stdin: Option<pipe::Sender>,
    (stdout, stderr): (ExecOutput, Option<ExecOutput>),
    end: impl Future<Output = i32> + Send + 'static,
) -> Session {
    Streams { stdin, stdout, stderr, terminal: None }.carry(pid, end)
}

impl Streams {
    fn carry(self, pid: i32, end: impl Future<Output = i32> + Send + 'static) -> Session {
        let (input, received) = mpsc::channel(WAITING_MAX);
        let (sender, output) = mpsc::channel(WAITING_MAX);
        let Self { stdin, stdout, stderr, terminal } = self;
        let is_joined = terminal.is_none();
        let feeding = tokio::spawn(feed(stdin, terminal, received));
        tokio::spawn(async move {
            tokio::select! {
                () = tell(stdout, stderr, end, is_joined, &sender) => {}
                () = sender.closed() => {}
            }
            feeding.abort();
        });
        Session { pid, input, output }
    }
}

/// Hands on what a process prints, and at last its exit status.
async fn tell(
    stdout: ExecOutput,
    stderr: Option<ExecOutput>,
    end: impl Future<Output = i32>,
    is_joined: bool,
    sender: &mpsc::Sender<Output>,
) {
    let ended = CancellationToken::new();
    let streams = async {
        let out = pump(stdout, sender, Output::Out, &ended);
        let err = async {
            if let Some(stderr) = stderr {
                pump(stderr, sender, Output::Err, &ended).await;
            }
        };
        tokio::join!(out, err);
    };
    let end = async {
        let code = end.await;
        ended.cancel();
        code
    };
    tokio::pin!(streams, end);
    let code = tokio::select! {
        code = &mut end => {
            streams.await;
            code
        }
        () = &mut streams => {
            match if is_joined { timeout(LAST_WORD, &mut end).await } else { Ok((&mut end).await) } {
                Ok(code) => code,
                Err(_) => {
                    // Nobody needs to know if nobody listens.
                    let _ = sender.send(Output::Err(Bytes::from_static(NO_MORE.as_bytes()))).await;
                    0
                }
            }
        }
    };
    let _ = sender.send(Output::Exit(code)).await;
}

/// Hands input on, and holds input and terminal open until told otherwise.
async fn feed(mut stdin: Option<pipe::Sender>, terminal: Option<ExecTerminal>, mut received: mpsc::Receiver<Input>) {
    let terminal = terminal.filter(ExecTerminal::is_some);
    while let Some(input) = received.recv().await {
        match (input, &terminal) {
            (Input::Piece(piece), _) => {
                let failed = match &mut stdin {
                    Some(stdin) => stdin.write_all(&piece).await.is_err(),
                    None => false,
                };
                if failed {
                    stdin = None;
                }
            }
            // The end of a terminal is typed, not closed.
            (Input::End, Some(_)) => {}
            (Input::End, None) => stdin = None,
            // One that is gone has no size.
            (Input::Resize(size), Some(terminal)) => drop(terminal.resize(size)),
            (Input::Resize(_), None) => {}
        }
    }
    drop(stdin);
    if terminal.is_some() {
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
