//! Sends answers. An HTTP/2 client can request any amount of data and read none of it: if nothing of an answer is read
//! for [`STALL_MAX`], its stream is reset.
//!
//! hyper polls a body for its next piece if the client's window has space. So bodies are split into small pieces, and
//! the time since the last piece shows whether the client is reading.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::Instant;
use tracing::debug;

use super::peers::{Proxied, Request};

/// How long a client may read nothing of an answer that is ready.
pub(in crate::http) const STALL_MAX: Duration = Duration::from_secs(30);
/// Size (bytes) of the pieces of a body.
const PIECE_BYTES: usize = 16 << 10;

tokio::task_local! {
    /// Progress of the HTTP/2 stream that the current task serves.
    static STREAM: Arc<Progress>;
}

/// Progress of the answer on a stream.
struct Progress {
    begin: Instant,
    /// Milliseconds from `begin` until the client was last offered data; [`NOTHING`] if it has been offered none.
    offered_ms: AtomicU64,
}

/// No data is available: the client is waiting for the host.
const NOTHING: u64 = u64::MAX;

impl Progress {
    fn new() -> Self {
        Self { begin: Instant::now(), offered_ms: AtomicU64::new(NOTHING) }
    }

    fn offered(&self) {
        let now_ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.offered_ms.store(now_ms, Ordering::Relaxed);
    }

    fn taken(&self) {
        self.offered_ms.store(NOTHING, Ordering::Relaxed);
    }

    /// Waits until the client has read nothing for `stall`.
    async fn stalled(&self, stall: Duration) {
        loop {
            let since = match self.offered_ms.load(Ordering::Relaxed) {
                NOTHING => Instant::now(),
                offered_ms => self.begin + Duration::from_millis(offered_ms),
            };
            let until = since + stall;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Runs the streams of HTTP/2 connections, each until it ends or its client stops reading.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    pub(super) stall: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let (stall, progress) = (self.stall, Arc::new(Progress::new()));
        tokio::spawn(STREAM.scope(progress.clone(), async move {
            tokio::select! {
                _ = stream => {}
                // Dropping an unfinished stream resets it.
                () = progress.stalled(stall) => debug!("stream reset: the client does not read the response"),
            }
        }));
    }
}

/// The body of an answer while it is being sent.
pub(super) struct Outgoing<B> {
    body: B,
    /// The unsent rest of the body's last piece.
    left: Bytes,
    progress: Option<Arc<Progress>>,
    /// Marks the connection as in use until the body has been sent.
    _request: Request,
    _proxied: Option<Proxied>,
}

impl<B> Outgoing<B> {
    /// Must be called in the task of its stream, if it has one.
    pub(super) fn new(body: B, request: Request, proxied: Option<Proxied>) -> Self {
        let progress = STREAM.try_with(Arc::clone).ok();
        if let Some(progress) = &progress {
            progress.offered();
        }
        Self { body, left: Bytes::new(), progress, _request: request, _proxied: proxied }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        Frame::data(self.left.split_to(self.left.len().min(PIECE_BYTES)))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Outgoing<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let polled = if this.left.is_empty() {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        this.left = data;
                        Poll::Ready(Some(Ok(this.piece())))
                    }
                    Err(frame) => Poll::Ready(Some(Ok(frame))),
                },
                other => other,
            }
        } else {
            Poll::Ready(Some(Ok(this.piece())))
        };
        if let Some(progress) = &this.progress {
            match &polled {
                Poll::Ready(_) => progress.offered(),
                Poll::Pending => progress.taken(),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (left, rest) = (self.left.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(left));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(left));
        }
        hint
    }
}
