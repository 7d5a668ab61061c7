//! Messages on streams: a bounded queue for each peer, one task that writes it out, one that reads.
//!
//! Input: messages of the core. Output: the same bytes at the peer, in order, at most once or rarely twice, perhaps not
//! at all: a slow peer loses the oldest first, and the core repairs. On the wire each is a length (u32, big-endian)
//! and its bytes.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use libp2p::Stream;
use shoal_cluster::id::NodeId;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::counted::Counters;
use super::door::lock;
use super::hub::Command;
use super::{MESSAGE_BYTES_MAX, TransportEvent, streams};

/// Messages that wait for one peer.
const QUEUE_MESSAGES_MAX: usize = 1024;
/// Bytes that wait for one peer.
const QUEUE_BYTES_MAX: usize = 8 << 20;
/// Bytes that are gathered for one write.
const WRITE_BYTES: usize = 64 << 10;
/// A write that takes longer means that the peer is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream on which nothing was sent for this long is closed; another is opened when needed.
const STREAM_IDLE: Duration = Duration::from_secs(60);

const _: () = assert!(MESSAGE_BYTES_MAX + 4 <= QUEUE_BYTES_MAX);

/// What all tasks that serve one peer share.
pub(super) struct Lane {
    queue: Mutex<Queue>,
    filled: Notify,
    /// Whether a writer takes from the queue.
    pub(super) connected: AtomicBool,
    /// Whether the hub was told already that somebody waits for a connection.
    pub(super) wanted: AtomicBool,
    /// Counts connections, so that the writer moves to the newest.
    connection: AtomicU64,
    /// When a message last went either way, in milliseconds after `started`.
    used_ms: AtomicU64,
    started: Instant,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            queue: Mutex::default(),
            filled: Notify::new(),
            connected: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            connection: AtomicU64::new(0),
            used_ms: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    /// Puts a message last; if the queue is full, the oldest go. Returns how many went.
    pub(super) fn push(&self, message: Vec<u8>) -> usize {
        let mut queue = lock(&self.queue);
        let mut dropped = 0;
        while queue.messages.len() >= QUEUE_MESSAGES_MAX || queue.bytes + message.len() > QUEUE_BYTES_MAX {
            let Some(oldest) = queue.messages.pop_front() else { break };
            queue.bytes -= oldest.len();
            dropped += 1;
        }
        queue.bytes += message.len();
        queue.messages.push_back(message);
        drop(queue);
        self.filled.notify_one();
        dropped
    }

    /// Forgets all messages and returns how many there were.
    pub(super) fn clear(&self) -> usize {
        let mut queue = lock(&self.queue);
        queue.bytes = 0;
        std::mem::take(&mut queue.messages).len()
    }

    /// Takes what one write carries, with lengths in front, and how many messages that are.
    fn take(&self) -> Option<(Vec<u8>, usize)> {
        let mut queue = lock(&self.queue);
        let (mut bytes, mut count) = (Vec::new(), 0);
        while let Some(message) = queue.messages.front() {
            if count > 0 && bytes.len() + message.len() > WRITE_BYTES {
                break;
            }
            let Some(message) = queue.messages.pop_front() else { break };
            queue.bytes -= message.len();
            bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&message);
            count += 1;
        }
        (count > 0).then_some((bytes, count))
    }

    async fn next(&self) -> (Vec<u8>, usize) {
        loop {
            if let Some(taken) = self.take() {
                return taken;
            }
            self.filled.notified().await;
        }
    }

    /// Notes that there is a new connection to this peer.
    pub(super) fn note_connection(&self) {
        self.connection.fetch_add(1, Ordering::Relaxed);
        self.note_use();
    }

    fn note_use(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used_ms.store(now, Ordering::Relaxed);
    }

    /// Returns for how long no message went either way.
    pub(super) fn unused_for(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.used_ms.load(Ordering::Relaxed)))
    }
}

/// Writes one peer's queue to a stream on its newest connection, until the hub ends the task.
pub(super) async fn write_messages(
    to: NodeId,
    lane: Arc<Lane>,
    hub: mpsc::UnboundedSender<Command>,
    counters: Arc<Counters>,
) {
    let mut open: Option<(u64, Stream)> = None;
    loop {
        let (bytes, count) = match timeout(STREAM_IDLE, lane.next()).await {
            Ok(taken) => taken,
            Err(_) => {
                if let Some((_, mut stream)) = open.take() {
                    let _ = timeout(WRITE_TIMEOUT, stream.close()).await;
                }
                lane.next().await
            }
        };
        match write_batch(to, &lane, &hub, &mut open, &bytes).await {
            Ok(()) => {
                lane.note_use();
                Counters::add(&counters.sent_messages, count);
            }
            Err(error) => {
                debug!(node = %to, %error, count, "messages could not be sent");
                Counters::add(&counters.dropped_messages, count);
                if error.kind() == io::ErrorKind::TimedOut {
                    let _ = hub.send(Command::Stuck(to));
                }
            }
        }
    }
}

/// Writes once; a stream that turns out to be dead is replaced by a new one and the write repeated.
async fn write_batch(
    to: NodeId,
    lane: &Lane,
    hub: &mpsc::UnboundedSender<Command>,
    open: &mut Option<(u64, Stream)>,
    bytes: &[u8],
) -> io::Result<()> {
    let newest = lane.connection.load(Ordering::Relaxed);
    if let Some((connection, mut stream)) = open.take()
        && connection == newest
        && write_all(&mut stream, bytes).await.is_ok()
    {
        *open = Some((connection, stream));
        return Ok(());
    }
    let (reply, opened) = oneshot::channel();
    let gone = || io::Error::from(io::ErrorKind::NotConnected);
    hub.send(Command::Open { to, protocol: streams::MESSAGES, dial: false, reply }).map_err(|_| gone())?;
    let mut stream = timeout(WRITE_TIMEOUT, opened).await?.map_err(|_| gone())??;
    write_all(&mut stream, bytes).await?;
    *open = Some((newest, stream));
    Ok(())
}

async fn write_all(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    timeout(WRITE_TIMEOUT, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    })
    .await?
}

/// Reads the messages that one peer sends on one stream, until it ends.
pub(super) async fn read_messages(
    from: NodeId,
    mut stream: Stream,
    lane: Arc<Lane>,
    events: mpsc::Sender<TransportEvent>,
    counters: Arc<Counters>,
) {
    loop {
        let bytes = match read_message(&mut stream).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                warn!(node = %from, %error, "a peer breaks the protocol; closing its stream");
                return;
            }
            Err(error) => {
                debug!(node = %from, %error, "a stream of a peer ended");
                return;
            }
        };
        lane.note_use();
        Counters::add(&counters.received_messages, 1);
        if events.send(TransportEvent::Message { from, bytes }).await.is_err() {
            return;
        }
    }
}

/// Reads one message, or nothing at the end of the stream. Memory grows with what arrives, not with what is announced.
async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        let what = format!("a message of {length} bytes, the most is {MESSAGE_BYTES_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut bytes = Vec::new();
    (&mut *stream).take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Some(bytes)) }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        block_on(read_message(&mut Cursor::new(bytes)))
    }

    #[test]
    fn hostile_lengths_and_cut_messages_are_errors() {
        assert_eq!(read(b"").expect("the end of a stream"), None);
        assert_eq!(read(b"\0\0\0\x02ab").expect("whole"), Some(b"ab".to_vec()));
        assert_eq!(read(b"\0\0\0\0").expect("empty"), Some(Vec::new()));
        let too_long = (MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes();
        assert_eq!(read(&too_long).expect_err("too long").kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(&[0xff; 64]).expect_err("far too long").kind(), io::ErrorKind::InvalidData);
        for cut in [b"\0".as_slice(), b"\0\0\0\x05abc", &(MESSAGE_BYTES_MAX as u32).to_be_bytes()] {
            assert_eq!(read(cut).expect_err("cut").kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_full_queue_loses_the_oldest_and_stays_within_its_bytes() {
        let lane = Lane::new();
        for number in 0..QUEUE_MESSAGES_MAX {
            assert_eq!(lane.push(vec![number as u8]), 0);
        }
        assert_eq!(lane.push(vec![0xff]), 1);
        assert_eq!(lane.take().map(|(bytes, count)| (bytes[4], count)), Some((1, QUEUE_MESSAGES_MAX)));
        for _ in 0..20 {
            lane.push(vec![0; MESSAGE_BYTES_MAX]);
        }
        assert!(lock(&lane.queue).bytes <= QUEUE_BYTES_MAX);
        assert!(lane.clear() <= QUEUE_BYTES_MAX / MESSAGE_BYTES_MAX);
        assert!(lane.take().is_none());
    }

    #[test]
    fn a_write_gathers_small_messages_and_takes_a_large_one_alone() {
        let lane = Lane::new();
        lane.push(vec![1; WRITE_BYTES * 2]);
        lane.push(vec![2; 10]);
        lane.push(vec![3; 10]);
        assert_eq!(lane.take().map(|(bytes, count)| (bytes.len(), count)), Some((WRITE_BYTES * 2 + 4, 1)));
        assert_eq!(lane.take().map(|(bytes, count)| (bytes.len(), count)), Some((28, 2)));
    }
}
