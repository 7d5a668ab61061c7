//! Serving: what other nodes want of this node's tasks.
//!
//! Input: streams that members of this shoal opened; nobody else gets so far. Output: frames. Requests at a time are
//! bounded, and one too many is told so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::Stream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::frame::{self, Frame, Reply, Request};
use super::{Input, LOG_TASKS_MAX, LogAsk, Output, Question, ReachError, Said, Session, Tasks};
use crate::transport::Transport;

/// Requests of all nodes at a time; followed logs and commands last.
const SERVES_MAX: usize = 256;
/// Requests beyond that which are being told so.
const REFUSALS_MAX: usize = 64;
/// Time for a request to come, and for a refusal to go.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

type Reading = ReadHalf<Stream>;
type Writing = WriteHalf<Stream>;

/// Serves this node's tasks to the others until the transport ends.
pub fn serve(transport: &Transport, tasks: Arc<dyn Tasks>) {
    let mut streams = transport.accept_task_streams(REFUSALS_MAX);
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(SERVES_MAX));
        let mut serves = JoinSet::new();
        while let Some((from, stream)) = streams.recv().await {
            while serves.try_join_next().is_some() {}
            let slot = slots.clone().try_acquire_owned().ok();
            if slot.is_none() && serves.len() >= SERVES_MAX + REFUSALS_MAX {
                continue;
            }
            let tasks = Arc::clone(&tasks);
            serves.spawn(async move {
                if let Err(error) = answer(stream, tasks.as_ref(), slot.is_some()).await {
                    debug!(node = %from, %error, "a request about a task was not served to its end");
                }
                drop(slot);
            });
        }
    });
}

async fn answer(stream: Stream, tasks: &dyn Tasks, has_slot: bool) -> io::Result<()> {
    let (mut reading, mut writing) = stream.split();
    let Some(Frame::Request(request)) = timeout(STEP_TIMEOUT, frame::read(&mut reading)).await?? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if !has_slot {
        let busy = match request {
            Request::Logs(_) => Frame::Log(Said::Failed(ReachError::Busy)),
            Request::Exec(_) | Request::Attach(_) | Request::Ask(..) => {
                Frame::Reply(Box::new(Reply::Failed(ReachError::Busy)))
            }
        };
        timeout(STEP_TIMEOUT, frame::write(&mut writing, &busy)).await??;
    } else {
        match request {
            Request::Logs(ask) => logs(tasks, ask, &mut reading, &mut writing).await?,
            Request::Exec(ask) => join(tasks.exec(*ask).await, reading, &mut writing).await?,
            Request::Attach(ask) => join(tasks.attach(ask).await, reading, &mut writing).await?,
            Request::Ask(task, question) => {
                let waits = question == Question::Wait;
                let answered = tasks.ask(task, question);
                // Whatever changes something is carried out though nobody waits for the answer any more.
                let answered = tokio::select! {
                    answered = answered => answered,
                    () = gone(&mut reading), if waits => return Ok(()),
                };
                let reply = answered.map_or_else(Reply::Failed, Reply::Answer);
                frame::write(&mut writing, &Frame::Reply(Box::new(reply))).await?;
            }
        }
    }
    timeout(STEP_TIMEOUT, writing.close()).await?
}

/// Returns when the asker has gone away; says nothing of what it sends.
async fn gone(reading: &mut Reading) {
    while let Ok(Some(_)) = frame::read(reading).await {}
}

async fn logs(tasks: &dyn Tasks, ask: LogAsk, reading: &mut Reading, writing: &mut Writing) -> io::Result<()> {
    if ask.tasks.len() > LOG_TASKS_MAX {
        let error = ReachError::Refused(format!("logs of more than {LOG_TASKS_MAX} tasks at once"));
        return frame::write(writing, &Frame::Log(Said::Failed(error))).await;
    }
    let mut said = tasks.logs(ask);
    let saying = async {
        while let Some(said) = said.recv().await {
            frame::write(writing, &Frame::Log(said)).await?;
        }
        frame::write(writing, &Frame::LogEnd).await
    };
    tokio::select! {
        said = saying => said,
        () = gone(reading) => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

async fn join(begun: Result<Session, ReachError>, reading: Reading, writing: &mut Writing) -> io::Result<()> {
    let Session { pid, input, output } = match begun {
        Ok(session) => session,
        Err(error) => return frame::write(writing, &Frame::Reply(Box::new(Reply::Failed(error)))).await,
    };
    frame::write(writing, &Frame::Reply(Box::new(Reply::Executed(pid)))).await?;
    tokio::select! {
        said = say(output, writing) => said,
        error = listen(reading, input) => Err(error),
    }
}

async fn say(mut output: mpsc::Receiver<Output>, writing: &mut Writing) -> io::Result<()> {
    while let Some(output) = output.recv().await {
        let frame = match output {
            Output::Out(piece) => Frame::Out(piece),
            Output::Err(piece) => Frame::Err(piece),
            Output::Exit(code) => Frame::Exit(code),
        };
        frame::write(writing, &frame).await?;
    }
    Ok(())
}

/// Hands input on. Returns only if the asker is lost: after the end of its input it still listens.
async fn listen(mut reading: Reading, input: mpsc::Sender<Input>) -> io::Error {
    loop {
        let next = match frame::read(&mut reading).await {
            Ok(Some(Frame::Input(piece))) => Input::Piece(piece),
            Ok(Some(Frame::InputEnd)) => Input::End,
            Ok(Some(Frame::Resize(size))) => Input::Resize(size),
            Ok(Some(_)) => return io::ErrorKind::InvalidData.into(),
            Ok(None) => {
                drop(input);
                return std::future::pending().await;
            }
            Err(error) => return error,
        };
        // A command that has ended takes no more; its output may still be on its way.
        let _ = input.send(next).await;
    }
}
