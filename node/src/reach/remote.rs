//! The tasks of other nodes, over streams of the transport.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use libp2p::Stream;
use shoal_cluster::{NodeId, TaskId, Views};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::frame::{self, Frame, Reply, Request};
use super::{
    Answer, AttachAsk, ExecAsk, Input, LogAsk, Output, Question, Reach, ReachError, Said, Session, Tasks, WAITING_MAX,
};
use crate::transport::Transport;

/// Time for a connection and a stream to come up and the request to go.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an answer, beyond what was asked for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// Returns the tasks of every node: this node's own directly, those of others through the transport.
pub fn everywhere(
    own: NodeId,
    local: Arc<dyn Tasks>,
    transport: Transport,
    views: watch::Receiver<Arc<Views>>,
) -> Reach {
    Arc::new(move |node| {
        if node == own {
            Arc::clone(&local)
        } else {
            Arc::new(Remote { node, transport: transport.clone(), views: views.clone() })
        }
    })
}

/// The tasks of one other node.
#[derive(Clone, Debug)]
struct Remote {
    node: NodeId,
    transport: Transport,
    views: watch::Receiver<Arc<Views>>,
}

impl Remote {
    /// Opens a stream and sends the request.
    async fn begin(&self, request: Request) -> Result<(ReadHalf<Stream>, WriteHalf<Stream>), ReachError> {
        let begun = async {
            let stream = self.transport.open_task_stream(self.node).await?;
            let (reading, mut writing) = stream.split();
            frame::write(&mut writing, &Frame::Request(request)).await?;
            Ok((reading, writing))
        };
        tokio::select! {
            begun = timeout(OPEN_TIMEOUT, begun) => begun.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(lost),
            error = self.down() => Err(error),
        }
    }

    /// Returns once the node is down: a connection to a machine that lost its power may stay open for long.
    async fn down(&self) -> ReachError {
        let mut views = self.views.clone();
        let is_down = |views: &Arc<Views>| !views.member(&self.node).is_some_and(|member| member.state.is_up());
        match views.wait_for(is_down).await {
            Ok(_) => ReachError::Unreachable("it is down".to_owned()),
            Err(_) => ReachError::Unreachable("this node stops".to_owned()),
        }
    }

    async fn reply(&self, reading: &mut ReadHalf<Stream>, within: Option<Duration>) -> Result<Reply, ReachError> {
        let read = async {
            match within {
                Some(within) => timeout(within, frame::read(reading)).await?,
                None => frame::read(reading).await,
            }
        };
        let read = tokio::select! {
            read = read => read,
            error = self.down() => return Err(error),
        };
        match read.map_err(lost)? {
            Some(Frame::Reply(reply)) => Ok(*reply),
            Some(_) => Err(lost(io::ErrorKind::InvalidData.into())),
            None => Err(lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    async fn answer(self, task: TaskId, question: Question) -> Result<Answer, ReachError> {
        let within = match &question {
            Question::Wait => None,
            // Its service may say longer, and the answer then comes late; an hour is for those.
            Question::Stop { grace_ms: None, .. } => Some(Duration::from_secs(3_600)),
            Question::Stop { grace_ms: Some(ms), .. } => Some(ANSWER_TIMEOUT + Duration::from_millis(*ms)),
            Question::Details | Question::Sample | Question::Processes | Question::Signal(_) | Question::Resize(_) => {
                Some(ANSWER_TIMEOUT)
            }
        };
        // The writing half stays open until the answer is there: its end means that nobody waits.
        let (mut reading, _writing) = self.begin(Request::Ask(task, question)).await?;
        match self.reply(&mut reading, within).await? {
            Reply::Answer(answer) => Ok(answer),
            Reply::Failed(error) => Err(error),
            Reply::Executed(_) => Err(lost(io::ErrorKind::InvalidData.into())),
        }
    }

    async fn join(self, request: Request) -> Result<Session, ReachError> {
        let (mut reading, writing) = self.begin(request).await?;
        let pid = match self.reply(&mut reading, Some(ANSWER_TIMEOUT)).await? {
            Reply::Executed(pid) => pid,
            Reply::Failed(error) => return Err(error),
            Reply::Answer(_) => return Err(lost(io::ErrorKind::InvalidData.into())),
        };
        let (input, received) = mpsc::channel(WAITING_MAX);
        let (sender, output) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            // Both halves are gone at the end, and with them the stream.
            tokio::select! {
                () = hear(reading, &sender) => {}
                () = tell(writing, received) => {}
                _ = self.down() => {}
                () = sender.closed() => {}
            }
        });
        Ok(Session { pid, input, output })
    }

    async fn follow(self, ask: LogAsk, sender: &mpsc::Sender<Said>) -> Result<(), ReachError> {
        let (mut reading, _writing) = self.begin(Request::Logs(ask)).await?;
        loop {
            let read = tokio::select! {
                read = frame::read(&mut reading) => read,
                error = self.down() => return Err(error),
                () = sender.closed() => return Ok(()),
            };
            match read.map_err(lost)? {
                Some(Frame::Log(said)) => {
                    let is_last = matches!(said, Said::Failed(_));
                    if sender.send(said).await.is_err() || is_last {
                        return Ok(());
                    }
                }
                Some(Frame::LogEnd) => return Ok(()),
                Some(_) => return Err(lost(io::ErrorKind::InvalidData.into())),
                None => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }
}

impl Tasks for Remote {
    fn logs(&self, ask: LogAsk) -> mpsc::Receiver<Said> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let remote = self.clone();
        tokio::spawn(async move {
            if let Err(error) = remote.follow(ask, &sender).await {
                // Nobody needs to know if nobody listens.
                let _ = sender.send(Said::Failed(error)).await;
            }
        });
        receiver
    }

    fn exec(&self, ask: ExecAsk) -> BoxFuture<'static, Result<Session, ReachError>> {
        self.clone().join(Request::Exec(Box::new(ask))).boxed()
    }

    fn attach(&self, ask: AttachAsk) -> BoxFuture<'static, Result<Session, ReachError>> {
        self.clone().join(Request::Attach(ask)).boxed()
    }

    fn ask(&self, task: TaskId, question: Question) -> BoxFuture<'static, Result<Answer, ReachError>> {
        self.clone().answer(task, question).boxed()
    }
}

fn lost(error: io::Error) -> ReachError {
    ReachError::Unreachable(match error.kind() {
        io::ErrorKind::NotConnected => "there is no connection".to_owned(),
        io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        io::ErrorKind::UnexpectedEof => "the connection broke".to_owned(),
        io::ErrorKind::InvalidData => "what it says is not understood".to_owned(),
        _ => error.to_string(),
    })
}

/// Hands on what comes from a command, until its end or that of the stream.
async fn hear(mut reading: ReadHalf<Stream>, sender: &mpsc::Sender<Output>) {
    loop {
        let output = match frame::read(&mut reading).await {
            Ok(Some(Frame::Out(piece))) => Output::Out(piece),
            Ok(Some(Frame::Err(piece))) => Output::Err(piece),
            Ok(Some(Frame::Exit(code))) => Output::Exit(code),
            Ok(_) | Err(_) => return,
        };
        let is_last = matches!(output, Output::Exit(_));
        if sender.send(output).await.is_err() || is_last {
            return;
        }
    }
}

/// Hands on what goes to a command. Returns only if the stream is lost.
async fn tell(mut writing: WriteHalf<Stream>, mut received: mpsc::Receiver<Input>) {
    loop {
        let input = received.recv().await;
        let ends = input.is_none();
        let frame = match input {
            Some(Input::Piece(piece)) => Frame::Input(piece),
            Some(Input::Resize(size)) => Frame::Resize(size),
            Some(Input::End) | None => Frame::InputEnd,
        };
        if frame::write(&mut writing, &frame).await.is_err() {
            // The reading half knows more: a command that has ended may still have output on its way.
            return std::future::pending().await;
        }
        if ends {
            // Half-closed: what comes back still comes.
            let _ = writing.close().await;
            return std::future::pending().await;
        }
    }
}
