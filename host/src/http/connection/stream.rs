//! A connection as HTTP gets it: its first bytes are there, its client has to take what is written, and its end waits until
//! the client had time to read.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tracing::debug;

/// What every HTTP/2 connection begins with (RFC 9113 section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes thrown away at a time.
const SCRATCH_BYTES: usize = 8 * 1024;

/// A connection that has begun to speak.
pub(super) struct Stream<S> {
    /// What was read of it to see what it speaks.
    begun: Bytes,
    inner: S,
    linger: Duration,
    lingering: Option<Pin<Box<Sleep>>>,
    stall: Duration,
    /// Runs while the client takes nothing of what is to be written.
    stalled: Option<Pin<Box<Sleep>>>,
    /// The last write found no room.
    write_waits: bool,
}

impl<S> Stream<S> {
    /// An attempt to write: an error once the client took nothing for as long as it may.
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
        debug!("a connection was ended: its client takes nothing of what is sent");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn wrote(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.write_waits = polled.is_pending();
        self.watched(cx, polled)
    }
}

/// Waits until the first bytes tell HTTP/2 from HTTP/1: hyper has no timer for that, so a connection that stays silent
/// would keep its slot for ever.
///
/// `linger` is how long what the client still sends is taken and thrown away after the last answer. Were the connection
/// closed with bytes unread, TCP would reset it, and a client that is refused before it has sent its body would never see
/// why (RFC 9112 section 9.6).
///
/// `stall` is how long the client may take nothing of what is written.
pub(super) async fn opening<S>(mut inner: S, limit: Duration, linger: Duration, stall: Duration) -> Option<Stream<S>>
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
    match tokio::time::timeout(limit, decided).await {
        Ok(Ok(())) if !read.is_empty() => Some(Stream {
            begun: read.into(),
            inner,
            linger,
            lingering: None,
            stall,
            stalled: None,
            write_waits: false,
        }),
        Ok(_) => None,
        Err(_) => {
            debug!("a connection sent no request in time");
            None
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.begun.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let taken = self.begun.len().min(buf.remaining());
        buf.put_slice(&self.begun[..taken]);
        self.begun.advance(taken);
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
                // Its client is done too, or gone: what was to be said was said.
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

    #[tokio::test]
    async fn what_was_read_to_tell_what_it_speaks_comes_first() {
        for sent in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"] {
            let (mut client, server) = duplex(64);
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut stream = opening(server, NEVER, NEVER, NEVER).await.unwrap();
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, sent);
        }
    }

    /// Ends a connection whose client still sends more than there is room for, and then ends too, or never does.
    async fn end(linger: Duration, client_ends: bool) {
        let (mut client, server) = duplex(64);
        client.write_all(b"POST").await.unwrap();
        let mut stream = opening(server, NEVER, linger, NEVER).await.unwrap();
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
        let mut stream = opening(server, NEVER, NEVER, stall).await.unwrap();
        let slow = tokio::spawn(async move {
            for _ in 0..4 {
                tokio::time::sleep(stall / 3).await;
                client.read_exact(&mut [0; 16]).await.unwrap();
            }
            client
        });
        // 64 bytes wait for the client, and it takes 64 more in four steps.
        stream.write_all(&[b'x'; 128]).await.unwrap();
        let _client = slow.await.unwrap();
        let begun = Instant::now();
        let error = stream.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= stall);
    }
}
