//! From bundle to handle: starts a shim or finds one that lives, and follows it to its end.
//!
//! Input: a spec, or a bundle of an earlier daemon. Output: a [`Handle`] whose phase becomes *exited* when the shim
//! has left, with what the shim wrote, or with the statement that it was killed.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::super::protocol::Greeting;
use super::super::shim::now_ms;
use super::super::{ContainerSpec, Exit, StartError, bundle};
use super::link::{self, Link};
use super::{ANSWER_TIMEOUT, Handle, Phase, ShimCommand, start_error};

/// Sweeps at once: after a reboot there may be a thousand to do, and each is a process.
static SWEEPS: Semaphore = Semaphore::const_new(4);

/// Makes the bundle and starts its shim. Returns the process number of the container. If it fails, nothing is left.
pub(super) async fn create(
    shim: &ShimCommand,
    directory: &Path,
    spec: &ContainerSpec,
) -> Result<(Arc<Handle>, i32), StartError> {
    let bundle = directory.join(&spec.id);
    bundle::create_private_dir(&bundle).map_err(start_error("make", &bundle))?;
    let created = match bundle::write(&bundle, bundle::SPEC, spec) {
        Ok(()) => start_shim(shim, &bundle).await,
        Err(error) => Err(start_error("write to", &bundle)(error)),
    };
    match created {
        Ok((link, greeting, pid)) => Ok((follow(shim, bundle, spec, link, &greeting), pid)),
        Err(error) => {
            if let Err(left) = discard(shim, &bundle).await {
                tracing::warn!(container = %spec.id, error = %left, "cannot remove what a failed creation left");
            }
            Err(error)
        }
    }
}

async fn start_shim(shim: &ShimCommand, bundle: &Path) -> Result<(Link, Greeting, i32), StartError> {
    let (ours, theirs) = StdUnixStream::pair().map_err(start_error("open a socket to the shim of", bundle))?;
    let listener = link::listen(bundle).map_err(start_error("open the socket of", bundle))?;
    let child = command(shim, bundle, Stdio::from(OwnedFd::from(theirs))).and_then(|mut command| {
        command.stdout(OwnedFd::from(listener)).arg("run").args(&shim.runtime);
        command.spawn()
    });
    let mut child = child.map_err(start_error("start the shim", &shim.exe))?;
    match timeout(ANSWER_TIMEOUT, Link::inherited(ours)).await {
        Ok(Ok((link, greeting))) => match greeting {
            Greeting::Created { pid } | Greeting::Running { pid, .. } => {
                // Only to collect it; its end is learnt from the link.
                tokio::spawn(async move { child.wait().await });
                Ok((link, greeting, pid))
            }
            Greeting::Failed(failure) => {
                link.closed().await;
                end(child).await;
                Err(StartError::Failed { kind: failure.kind, message: failure.message })
            }
        },
        Ok(Err(error)) => {
            let status = end(child).await;
            Err(StartError::Shim(format!("ended early ({status}): {}", last_words(bundle, &error))))
        }
        Err(_) => {
            let _ = child.start_kill();
            end(child).await;
            Err(StartError::Shim(format!("did not answer within {} s", ANSWER_TIMEOUT.as_secs())))
        }
    }
}

async fn end(mut child: Child) -> String {
    child.wait().await.map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string())
}

/// What the shim wrote to its standard error, such as a panic.
fn last_words(bundle: &Path, error: &io::Error) -> String {
    let words = fs::read(bundle.join(bundle::SHIM_LOG)).unwrap_or_default();
    let words = String::from_utf8_lossy(&words[words.len().saturating_sub(2000)..]).trim().replace('\n', "; ");
    if words.is_empty() { error.to_string() } else { words }
}

/// A shim inherits nothing: no environment, no descriptors but its sockets and a file for its last words.
fn command(shim: &ShimCommand, bundle: &Path, stdin: Stdio) -> io::Result<Command> {
    let mut command = Command::new(&shim.exe);
    let log = File::options().create(true).append(true).open(bundle.join(bundle::SHIM_LOG))?;
    command.arg("shim").arg(bundle).env_clear().stdin(stdin).stdout(Stdio::null()).stderr(log);
    // A terminal's Ctrl-C is for the daemon.
    command.process_group(0);
    Ok(command)
}

/// Takes over a bundle that an earlier daemon left; `None` if there was nothing in it worth keeping.
pub(super) async fn adopt(shim: ShimCommand, bundle: PathBuf) -> Option<Arc<Handle>> {
    let Ok(spec) = bundle::read::<ContainerSpec>(&bundle, bundle::SPEC) else {
        // The daemon ended before it had started a shim, or while it removed.
        if let Err(error) = discard(&shim, &bundle).await {
            tracing::warn!(bundle = %bundle.display(), %error, "cannot remove a broken bundle");
        }
        return None;
    };
    match timeout(ANSWER_TIMEOUT, Link::connect(&bundle)).await {
        Ok(Ok((link, greeting))) => Some(follow(&shim, bundle, &spec, link, &greeting)),
        gone => {
            if gone.is_err() {
                tracing::warn!(container = %spec.id, "its shim does not react, killing it");
                let _ = link::kill_shim(&bundle).await;
            }
            let exit = settle(&shim, &bundle).await;
            Some(Arc::new(handle(bundle, &spec, Phase::exited(exit))))
        }
    }
}

fn handle(bundle: PathBuf, spec: &ContainerSpec, phase: Phase) -> Handle {
    Handle { id: spec.id.clone(), labels: spec.labels.clone(), bundle, phase: watch::Sender::new(phase) }
}

fn follow(shim: &ShimCommand, bundle: PathBuf, spec: &ContainerSpec, link: Link, greeting: &Greeting) -> Arc<Handle> {
    let handle = Arc::new(handle(bundle, spec, Phase::greeted(greeting)));
    let (shim, followed) = (shim.clone(), handle.clone());
    tokio::spawn(async move {
        link.closed().await;
        let exit = settle(&shim, &followed.bundle).await;
        followed.phase.send_replace(Phase::exited(exit));
    });
    handle
}

/// Establishes the end of a container whose shim is gone, and that nothing of it runs.
async fn settle(shim: &ShimCommand, bundle: &Path) -> Exit {
    if let Err(error) = sweep(shim, bundle).await {
        tracing::warn!(bundle = %bundle.display(), %error, "cannot clean up after a container");
    }
    if let Ok(exit) = bundle::read::<Exit>(bundle, bundle::EXIT) {
        return exit;
    }
    let exit = Exit {
        code: 128 + libc::SIGKILL,
        signal: Some(libc::SIGKILL),
        oom: false,
        error: Some("the container's shim was killed or the host restarted; the container ended with it".to_owned()),
        finished_at_ms: now_ms(),
        started_at_ms: 0,
    };
    if let Err(error) = bundle::write(bundle, bundle::EXIT, &exit) {
        tracing::warn!(bundle = %bundle.display(), %error, "cannot write down the end of a container");
    }
    exit
}

/// Kills and removes what a killed shim left; a shim that could clean up has removed its socket.
async fn sweep(shim: &ShimCommand, bundle: &Path) -> io::Result<()> {
    if !bundle.join(bundle::SOCKET).try_exists()? {
        return Ok(());
    }
    let _permit = SWEEPS.acquire().await;
    let status = command(shim, bundle, Stdio::null())?.arg("sweep").status().await?;
    if status.success() {
        return Ok(());
    }
    let reason = last_words(bundle, &io::Error::other(status.to_string()));
    Err(io::Error::other(reason))
}

/// Removes a bundle and what its container left, after its end.
pub(super) async fn discard(shim: &ShimCommand, bundle: &Path) -> io::Result<()> {
    sweep(shim, bundle).await?;
    let bundle = bundle.to_path_buf();
    let removed = tokio::task::spawn_blocking(move || bundle::remove_tree(&bundle)).await;
    removed.unwrap_or_else(|error| Err(io::Error::other(error)))
}
