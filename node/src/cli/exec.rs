//! `shoal exec`: a further command in a task's container, on whichever node it runs.

mod terminal;

use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use super::logs::Frames;
use crate::client::{Client, encoded};
use terminal::Raw;

/// Bytes read at once.
const PIECE_BYTES: usize = 32 << 10;
/// Docker's number of standard error.
const STDERR: u8 = 2;

/// What to run.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Hand on standard input.
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal.
    #[arg(short, long)]
    tty: bool,
    /// Return at once, and show nothing of it.
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,
    /// Set variables of its environment.
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Run it as this user, UID or name and perhaps a group.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Run it in this directory.
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// Give it all capabilities, and no filter of system calls.
    #[arg(long)]
    privileged: bool,
    /// In whose container: its id, or SERVICE.SLOT.
    #[arg(value_name = "TASK")]
    task: String,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn run(args: ExecArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let own_terminal = args.tty && args.interactive;
    ensure!(
        !own_terminal || terminal::is_here(),
        "standard input is not a terminal: leave --tty out, or --interactive"
    );
    let size = args.tty.then(terminal::size).flatten();
    let announced = json!({
        "AttachStdin": args.interactive, "AttachStdout": !args.detach, "AttachStderr": !args.detach,
        "Tty": args.tty, "ConsoleSize": size, "Env": args.env, "User": args.user, "WorkingDir": args.workdir,
        "Privileged": args.privileged, "Cmd": args.command,
    });
    let created: Value = client.post(&format!("/containers/{}/exec", encoded(&args.task)), &announced).await?;
    let id = created["Id"].as_str().context("the node sent no id")?;
    if args.detach {
        client.tell(&format!("/exec/{id}/start"), &json!({ "Detach": true })).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let start = json!({ "Tty": args.tty, "ConsoleSize": size });
    let stream = client.hijack(&format!("/exec/{id}/start"), &start).await?;
    let raw = own_terminal.then(Raw::enter).transpose()?;
    let carried = carry(stream, &args, id, client).await;
    drop(raw);
    carried?;
    let ended: Value = client.ask(&format!("/exec/{id}/json")).await?;
    let code = ended["ExitCode"].as_i64().context("the command's end is not known: its node may be lost")?;
    Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)))
}

/// Carries both directions and the terminal's size until the node closes the connection.
async fn carry(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    args: &ExecArgs,
    id: &str,
    client: &Client,
) -> anyhow::Result<()> {
    let (reading, writing) = tokio::io::split(stream);
    let sending = args.interactive.then(|| tokio::spawn(send(writing)));
    let resizing = async {
        let Ok(mut changes) = signal(SignalKind::window_change()) else { return std::future::pending().await };
        loop {
            changes.recv().await;
            if let Some([rows, columns]) = terminal::size() {
                // One that has just ended has no size.
                let _ = client.tell(&format!("/exec/{id}/resize?h={rows}&w={columns}"), &json!({})).await;
            }
        }
    };
    tokio::select! {
        shown = show(reading, args.tty) => shown?,
        () = resizing, if args.tty => {}
    }
    if let Some(sending) = sending {
        sending.abort();
    }
    Ok(())
}

/// Sends standard input to its end.
async fn send(mut writing: impl AsyncWrite + Unpin) {
    let mut input = tokio::io::stdin();
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(read @ 1..) = input.read(&mut piece).await {
        if writing.write_all(&piece[..read]).await.and(writing.flush().await).is_err() {
            return;
        }
    }
    // Half-closed: what comes back still comes.
    let _ = writing.shutdown().await;
    std::future::pending::<()>().await;
}

async fn show(mut reading: impl AsyncRead + Unpin, tty: bool) -> anyhow::Result<()> {
    let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
    let mut piece = vec![0; PIECE_BYTES];
    let mut frames = Frames::default();
    loop {
        let read = reading.read(&mut piece).await.context("the connection to the node broke")?;
        if read == 0 {
            return Ok(());
        }
        if tty {
            out.write_all(&piece[..read]).await?;
            out.flush().await?;
            continue;
        }
        frames.bytes.extend_from_slice(&piece[..read]);
        while let Some((stream, text)) = frames.next()? {
            if stream == STDERR {
                err.write_all(&text).await?;
            } else {
                out.write_all(&text).await?;
            }
        }
        out.flush().await?;
        err.flush().await?;
    }
}
