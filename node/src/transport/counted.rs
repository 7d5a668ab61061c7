//! Counts the bytes that really cross a socket, TLS and multiplexing included.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite};

/// What the transport has carried since it was started. Totals: the reader takes differences for rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes read from sockets, TLS included, TCP and IP headers not.
    pub received_bytes: u64,
    /// Bytes written to sockets, TLS included, TCP and IP headers not.
    pub sent_bytes: u64,
    /// Messages handed to the core.
    pub received_messages: u64,
    /// Messages written to a connection.
    pub sent_messages: u64,
    /// Messages given up because a peer was slow, gone, or in its pause between dials.
    pub dropped_messages: u64,
}

/// The counters behind [`Traffic`], shared by all tasks of the transport.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) received_bytes: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) received_messages: AtomicU64,
    pub(super) sent_messages: AtomicU64,
    pub(super) dropped_messages: AtomicU64,
}

impl Counters {
    /// Adds to one counter.
    pub(super) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Ordering::Relaxed);
    }

    /// Returns all counters as they are now.
    pub(super) fn read(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            received_bytes: read(&self.received_bytes),
            sent_bytes: read(&self.sent_bytes),
            received_messages: read(&self.received_messages),
            sent_messages: read(&self.sent_messages),
            dropped_messages: read(&self.dropped_messages),
        }
    }
}

/// A stream whose bytes are counted.
#[derive(Debug)]
pub(super) struct Counted<S> {
    inner: S,
    counters: Arc<Counters>,
}

impl<S> Counted<S> {
    pub(super) fn new(inner: S, counters: Arc<Counters>) -> Self {
        Self { inner, counters }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let Poll::Ready(Ok(bytes)) = read {
            Counters::add(&self.counters.received_bytes, bytes);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buffer);
        if let Poll::Ready(Ok(bytes)) = written {
            Counters::add(&self.counters.sent_bytes, bytes);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, buffers);
        if let Poll::Ready(Ok(bytes)) = written {
            Counters::add(&self.counters.sent_bytes, bytes);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}
