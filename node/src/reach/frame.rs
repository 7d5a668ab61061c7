//! Frames: what two nodes say to each other on a stream about a task.
//!
//! On the wire: kind (u8), length (u32, big-endian), body. Bodies are bytes of a command's streams, or values in the
//! encoding of messages. A frame that is too long, of an unknown kind or does not decode ends the stream.

use std::io;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use serde::{Deserialize, Serialize};
use shoal_cluster::TaskId;
use shoal_cluster::wire;
use shoal_runtime::container::WindowSize;

use super::{Answer, AttachAsk, ExecAsk, LogAsk, PIECE_BYTES_MAX, Question, ReachError, Said};

/// Longest body, in bytes. A batch of log lines and the arguments and environment of a command are the longest.
pub(super) const BODY_BYTES_MAX: usize = 512 << 10;
const HEAD_BYTES: usize = 5;

const REQUEST: u8 = 1;
const INPUT: u8 = 2;
const INPUT_END: u8 = 3;
const RESIZE: u8 = 4;
const REPLY: u8 = 16;
const LOG: u8 = 17;
const OUT: u8 = 18;
const ERR: u8 = 19;
const EXIT: u8 = 20;
const LOG_END: u8 = 21;

const _: () = assert!(PIECE_BYTES_MAX <= BODY_BYTES_MAX);

/// The first frame of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    Logs(LogAsk),
    Exec(Box<ExecAsk>),
    Ask(TaskId, Question),
    Attach(AttachAsk),
}

/// The answer to [`Request::Exec`] and [`Request::Attach`] (the process) and [`Request::Ask`]; logs begin at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    Executed(i32),
    Answer(Answer),
    Failed(ReachError),
}

/// One frame. The first four go to the task's node, the others come from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Request(Request),
    Input(Bytes),
    InputEnd,
    Resize(WindowSize),
    Reply(Box<Reply>),
    Log(Said),
    /// All has been said. A stream that ends without it was lost: a process that is killed closes its connections, too.
    LogEnd,
    Out(Bytes),
    Err(Bytes),
    Exit(i32),
}

impl Frame {
    fn encoded(&self) -> (u8, Bytes) {
        match self {
            Self::Request(request) => (REQUEST, wire::encode(request).into()),
            Self::Input(piece) => (INPUT, piece.clone()),
            Self::InputEnd => (INPUT_END, Bytes::new()),
            Self::Resize(size) => (RESIZE, wire::encode(size).into()),
            Self::Reply(reply) => (REPLY, wire::encode(reply).into()),
            Self::Log(said) => (LOG, wire::encode(said).into()),
            Self::LogEnd => (LOG_END, Bytes::new()),
            Self::Out(piece) => (OUT, piece.clone()),
            Self::Err(piece) => (ERR, piece.clone()),
            Self::Exit(code) => (EXIT, wire::encode(code).into()),
        }
    }

    fn decoded(kind: u8, body: Vec<u8>) -> Option<Self> {
        Some(match kind {
            REQUEST => Self::Request(wire::decode(&body).ok()?),
            INPUT => Self::Input(body.into()),
            INPUT_END => Self::InputEnd,
            RESIZE => Self::Resize(wire::decode(&body).ok()?),
            REPLY => Self::Reply(wire::decode(&body).ok()?),
            LOG => Self::Log(wire::decode(&body).ok()?),
            LOG_END => Self::LogEnd,
            OUT => Self::Out(body.into()),
            ERR => Self::Err(body.into()),
            EXIT => Self::Exit(wire::decode(&body).ok()?),
            _ => return None,
        })
    }
}

/// Writes a frame and sends it on its way.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let (kind, body) = frame.encoded();
    if body.len() > BODY_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the request or the answer is too long"));
    }
    let length = u32::try_from(body.len()).map_err(io::Error::other)?.to_be_bytes();
    stream.write_all(&[&[kind], length.as_slice(), &body].concat()).await?;
    stream.flush().await
}

/// Reads a frame; `None` if the stream ends before one. Not to be called again after a call that was cancelled.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut head = [0; HEAD_BYTES];
    if stream.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..]).await?;
    let [kind, a, b, c, d] = head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > BODY_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Frame::decoded(kind, body).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;
    use proptest::prelude::*;

    use super::*;

    fn written(frames: &[Frame]) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        frames.iter().for_each(|frame| block_on(write(&mut bytes, frame)).unwrap());
        bytes.into_inner()
    }

    fn all() -> Vec<Frame> {
        let task = TaskId([7; 16]);
        vec![
            Frame::Request(Request::Ask(task, Question::Stop { signal: Some(15), grace_ms: None })),
            Frame::Input(Bytes::from_static(b"\0\xff")),
            Frame::InputEnd,
            Frame::Resize(WindowSize { rows: 24, columns: 80 }),
            Frame::Reply(Box::new(Reply::Failed(ReachError::Missing(task)))),
            Frame::Log(Said::Quiet("2026-01-01T00:00:00.000000000Z".to_owned())),
            Frame::Out(Bytes::new()),
            Frame::Err(Bytes::from(vec![1; PIECE_BYTES_MAX])),
            Frame::LogEnd,
            Frame::Exit(-1),
        ]
    }

    #[test]
    fn frames_come_back_as_they_were_and_a_torn_one_is_an_error() {
        let bytes = written(&all());
        let mut stream = Cursor::new(&bytes);
        for frame in all() {
            assert_eq!(block_on(read(&mut stream)).unwrap(), Some(frame));
        }
        assert_eq!(block_on(read(&mut stream)).unwrap(), None);
        let mut torn = Cursor::new(&bytes[..bytes.len() - 1]);
        let last = (0..all().len()).map(|_| block_on(read(&mut torn))).last().unwrap();
        assert!(last.is_err());
    }

    #[test]
    fn a_frame_that_is_too_long_is_neither_written_nor_read() {
        let long = Frame::Out(vec![0; BODY_BYTES_MAX + 1].into());
        assert!(block_on(write(&mut Cursor::new(Vec::new()), &long)).is_err());
        let mut head = vec![OUT];
        head.extend(u32::MAX.to_be_bytes());
        assert!(block_on(read(&mut Cursor::new(head))).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_errors_and_no_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..24u8) {
            let _ = block_on(read(&mut Cursor::new(&bytes)));
            let mut framed = vec![kind];
            framed.extend((bytes.len() as u32).to_be_bytes());
            framed.extend(&bytes);
            let _ = block_on(read(&mut Cursor::new(&framed)));
        }
    }
}
