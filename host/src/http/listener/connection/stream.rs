//! The byte stream below HTTP: replays the first bytes, limits how long a client may stop reading, and delays the end
//! of a connection until the client has had time to read.
//!
//! # Half-closed connections
//! A client of HTTP/1 may close its sending side after the request and still read the response (RFC 9112 section 9.6).
//! Until something is written, this cannot be distinguished from a client that is gone. With half-close allowed, hyper
//! does not read between the request and the end of the response, so it notices neither the end nor a reset. Therefore
//! [`Stream`] reads one byte ahead whenever hyper flushes, as Go's server does:
//!
//! - A reset ends the connection at once, together with the request.
//! - The end of the client's side ends the connection at once if the response is [`Endless`]. Otherwise the response of a
//!   client that is gone would keep its slot until a write fails. hyper by default (and so axum) and nginx end every
//!   response in this case; Go leaves the decision to the handler.
//! - Any other response is sent completely. It ends by itself, and writes to a client that is gone soon fail.
//!
//! If the client has sent more than its request, such as a pipelined one, the byte ahead belongs to that, and nothing
//! behind it is noticed before a write. HTTP/2 reads at all times and ends with the client's side.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tracing::debug;

/// The preface of every HTTP/2 connection (RFC 9113 section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes discarded per read.
const SCRATCH_BYTES: usize = 8 * 1024;

/// Whether the current response on a connection of HTTP/1 does not end by itself. Clones share the value.
#[derive(Debug, Clone, Default)]
pub(super) struct Endless(Arc<AtomicBool>);

impl Endless {
    pub(super) fn set(&self, endless: bool) {
        self.0.store(endless, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Timeouts of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    /// For the first bytes.
    pub(super) head: Duration,
    /// For further bytes of the client after the last response, which are read and discarded. Closing with unread bytes
    /// makes TCP reset the connection, so a client refused before it has sent its body would not see the response
    /// (RFC 9112 section 9.6).
    pub(super) linger: Duration,
    /// For the client to accept some of the written bytes.
    pub(super) stall: Duration,
}

/// A connection that has sent its first bytes.
pub(super) struct Stream<S> {
    /// The bytes that were read to detect the protocol.
    begun: Bytes,
    speaks_h2: bool,
    inner: S,
    /// Read ahead; the first byte of hyper's next read.
    ahead: Option<u8>,
    /// The client has closed its sending side.
    ended: bool,
    /// hyper's last read was pending, so it has to be woken.
    read_waits: bool,
    endless: Endless,
    linger: Duration,
    lingering: Option<Pin<Box<Sleep>>>,
    stall: Duration,
    /// Timer that runs while the client reads nothing of the pending data.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Whether the last write is pending.
    write_waits: bool,
}

impl<S> Stream<S> {
    /// Adds the stall timeout to a write: an error if the client has read nothing for `stall`.
    fn watched<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            if !self.write_waits {
                self.stalled = None;
            }
            return polled;
        }
        let stall = self.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(stalled.as_mut().poll(cx));
        debug!("connection closed: the client does not read the response");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    fn wrote(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.write_waits = polled.is_pending();
        if self.write_waits {
            self.look_ahead(cx)?;
        }
        self.watched(cx, polled)
    }

    /// Checks whether the client has closed its side or reset the connection.
    ///
    /// # Errors
    /// If the connection was reset, or the client has closed its side and the response is endless.
    fn look_ahead(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.speaks_h2 || !self.begun.is_empty() || self.ahead.is_some() {
            return Ok(());
        }
        if !self.ended {
            let mut byte = [0];
            let mut read = ReadBuf::new(&mut byte);
            let Poll::Ready(outcome) = Pin::new(&mut self.inner).poll_read(cx, &mut read) else { return Ok(()) };
            self.ended = is_end(outcome, read.filled().is_empty())?;
            self.ahead = read.filled().first().copied();
            if self.read_waits {
                cx.waker().wake_by_ref();
            }
        }
        if self.ended && self.endless.get() {
            debug!("live tail ended: the client closed its side of the connection");
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// Whether a read found the end. The end of TCP without `close_notify` of TLS counts too: HTTP/1 detects an incomplete
/// request by itself.
fn is_end(outcome: io::Result<()>, nothing_read: bool) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(nothing_read),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
        Err(error) => Err(error),
    }
}

/// Waits until the first bytes distinguish HTTP/2 from HTTP/1. hyper has no timeout for that, so a silent connection
/// would occupy its slot for ever.
pub(super) async fn opening<S>(mut inner: S, waits: Waits, endless: Endless) -> Option<Stream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut read = Vec::with_capacity(H2_PREFACE.len());
    let decided = async {
        while H2_PREFACE.starts_with(&read) && read.len() < H2_PREFACE.len() {
            let mut rest = (&mut inner).take((H2_PREFACE.len() - read.len()) as u64);
            if rest.read_buf(&mut read).await? == 0 {
                break;
            }
        }
        Ok::<(), io::Error>(())
    };
    match tokio::time::timeout(waits.head, decided).await {
        Ok(Ok(())) if !read.is_empty() => Some(Stream {
            speaks_h2: read == H2_PREFACE,
            begun: read.into(),
            inner,
            ahead: None,
            ended: false,
            read_waits: false,
            endless,
            linger: waits.linger,
            lingering: None,
            stall: waits.stall,
            stalled: None,
            write_waits: false,
        }),
        Ok(_) => None,
        Err(_) => {
            debug!("connection closed: no request arrived in time");
            None
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.begun.is_empty() {
            let taken = this.begun.len().min(buf.remaining());
            buf.put_slice(&this.begun[..taken]);
            this.begun.advance(taken);
            return Poll::Ready(Ok(()));
        }
        if this.ended {
            buf.put_slice(this.ahead.take().as_slice());
            return Poll::Ready(Ok(()));
        }
        let Some(byte) = this.ahead.take() else {
            let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
            this.read_waits = polled.is_pending();
            return polled;
        };
        this.read_waits = false;
        buf.put_slice(&[byte]);
        // A body would otherwise arrive in single bytes. After a reset, the byte is of no use.
        let budget = buf.remaining();
        if budget > 0
            && let Poll::Ready(outcome) = Pin::new(&mut this.inner).poll_read(cx, buf)
        {
            this.ended = is_end(outcome, buf.remaining() == budget)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look_ahead(cx)?;
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.watched(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            this.write_waits = false;
            let polled = Pin::new(&mut this.inner).poll_shutdown(cx);
            ready!(this.watched(cx, polled))?;
        }
        let linger = this.linger;
        let lingering = this.lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(linger)));
        let mut scratch = [0; SCRATCH_BYTES];
        loop {
            if lingering.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut thrown_away = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.inner).poll_read(cx, &mut thrown_away)) {
                Ok(()) if !thrown_away.filled().is_empty() => {}
                // The client is done too, or gone: the response has been sent.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Instant;

    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    const NEVER: Duration = Duration::from_secs(3_600);
    const WAITS: Waits = Waits { head: NEVER, linger: NEVER, stall: NEVER };

    async fn open<S: AsyncRead + AsyncWrite + Unpin>(inner: S, waits: Waits) -> Stream<S> {
        opening(inner, waits, Endless::default()).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_read_to_tell_what_it_speaks_comes_first() {
        for sent in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"] {
            let (mut client, server) = duplex(64);
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut stream = open(server, WAITS).await;
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, sent);
        }
    }

    /// Ends a connection whose client still sends more than the buffer holds. It then closes its side, or never does.
    async fn end(linger: Duration, client_ends: bool) {
        let (mut client, server) = duplex(64);
        client.write_all(b"POST").await.unwrap();
        let mut stream = open(server, Waits { linger, ..WAITS }).await;
        let sends = tokio::spawn(async move {
            client.write_all(&[b'x'; 100_000]).await.unwrap();
            (!client_ends).then_some(client)
        });
        poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await.unwrap();
        drop(sends.await.unwrap());
    }

    #[tokio::test]
    async fn the_end_waits_until_the_client_is_done_and_no_longer_than_it_may() {
        end(NEVER, true).await;
        let begun = Instant::now();
        let linger = Duration::from_millis(50);
        end(linger, false).await;
        assert!(begun.elapsed() >= linger);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        let stall = Duration::from_secs(3);
        let (mut client, server) = duplex(64);
        client.write_all(b"GET").await.unwrap();
        let mut stream = open(server, Waits { stall, ..WAITS }).await;
        let slow = tokio::spawn(async move {
            for _ in 0..4 {
                tokio::time::sleep(stall / 3).await;
                client.read_exact(&mut [0; 16]).await.unwrap();
            }
            client
        });
        // 64 bytes are buffered for the client, and it reads 64 more in four steps.
        stream.write_all(&[b'x'; 128]).await.unwrap();
        let _client = slow.await.unwrap();
        let begun = Instant::now();
        let error = stream.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= stall);
    }

    #[tokio::test]
    async fn bytes_read_ahead_are_neither_lost_nor_reordered() {
        let (mut client, server) = duplex(16);
        let sent: Vec<u8> = (0..=255).cycle().take(5_000).collect();
        client.write_all(b"GET").await.unwrap();
        let mut stream = open(server, WAITS).await;
        let sends = tokio::spawn({
            let sent = sent.clone();
            async move { client.write_all(&sent).await }
        });
        let mut read = Vec::new();
        for budget in (1..=7).cycle() {
            stream.flush().await.unwrap();
            let mut piece = vec![0; budget];
            let bytes = stream.read(&mut piece).await.unwrap();
            stream.flush().await.unwrap();
            if bytes == 0 {
                break;
            }
            read.extend_from_slice(&piece[..bytes]);
        }
        sends.await.unwrap().unwrap();
        assert_eq!(read, [b"GET", sent.as_slice()].concat());
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the end is reported again");
    }

    #[tokio::test]
    async fn the_end_of_the_clients_side_ends_an_endless_response_alone() {
        let (mut client, server) = duplex(64);
        client.write_all(b"GET").await.unwrap();
        let endless = Endless::default();
        let mut stream = opening(server, WAITS, endless.clone()).await.unwrap();
        stream.read_exact(&mut [0; 3]).await.unwrap();
        endless.set(true);
        stream.flush().await.unwrap();
        endless.set(false);
        client.shutdown().await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(b"response").await.unwrap();
        endless.set(true);
        assert_eq!(stream.flush().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
