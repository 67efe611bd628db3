//! A connection that reads HTTP/1 responses with the tolerance of curl and Node. It wraps the connection below the HTTP
//! client. HTTP/2 passes through unchanged.
//!
//! It differs from the plain connection in two ways. The head of each response is buffered until it is complete, then
//! normalised by [`head`] and passed on without interim (1xx) responses. And a failed write of the request is not an
//! error yet: a receiver that responds early and closes the connection (413) resets it during the rest of the request,
//! and its response can still be read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use setgate_domain::attempt::ErrorClass;

use super::failure::Failure;
use super::head;

/// Size of one read of a head in bytes.
const READ_BYTES: usize = 4096;

#[derive(Debug)]
pub(super) struct TolerantHttp1<S> {
    inner: S,
    /// `None` for HTTP/2.
    http1: Option<Http1>,
}

#[derive(Debug, Default)]
struct Http1 {
    response: ResponseState,
    request: RequestState,
    /// Whether the rest of the request is discarded because it cannot be written.
    discards_request: bool,
}

/// Read state of the response.
#[derive(Debug, Default)]
enum ResponseState {
    /// The head is incomplete. Contains the bytes read so far.
    Head(Vec<u8>),
    /// Buffered bytes, and the number of them already passed on.
    Buffered(Vec<u8>, usize),
    /// In the body, or between two exchanges: bytes are passed through.
    #[default]
    Body,
}

/// Write state of the request. All of our requests have a `content-length`.
#[derive(Debug)]
enum RequestState {
    /// In the head. Contains the bytes written so far.
    Head(Vec<u8>),
    /// In the body. Contains the number of remaining bytes.
    Body(usize),
}

impl Default for RequestState {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl RequestState {
    /// Whether the last request was written completely and the next one has not begun.
    fn is_idle(&self) -> bool {
        matches!(self, Self::Head(written) if written.is_empty())
    }
}

impl<S: Connection> TolerantHttp1<S> {
    pub(super) fn new(inner: S) -> Self {
        let http1 = (!inner.connected().is_negotiated_h2()).then(Http1::default);
        Self { inner, http1 }
    }
}

impl<S: Connection> Connection for TolerantHttp1<S> {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}

impl<S: Read + Unpin> Read for TolerantHttp1<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(http1) = &mut this.http1 else { return Pin::new(&mut this.inner).poll_read(cx, into) };
        if let ResponseState::Head(read) = &mut http1.response {
            let head = ready!(poll_head(&mut this.inner, cx, read));
            let is_unsent = read.is_empty() && (http1.discards_request || !http1.request.is_idle());
            match head {
                Ok(Some(held)) => http1.response = ResponseState::Buffered(held, 0),
                // The receiver cannot have processed an incomplete request.
                Ok(None) | Err(_) if is_unsent => return Poll::Ready(Err(unsent())),
                // End of the connection, which the client interprets.
                Ok(None) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        match &mut http1.response {
            ResponseState::Buffered(held, passed) => {
                let left = &held[*passed..];
                let count = left.len().min(into.remaining());
                into.put_slice(&left[..count]);
                *passed += count;
                if *passed == held.len() {
                    http1.response = ResponseState::Body;
                }
                Poll::Ready(Ok(()))
            }
            ResponseState::Head(_) | ResponseState::Body => Pin::new(&mut this.inner).poll_read(cx, into),
        }
    }
}

/// Reads the head of a final response. Returns the normalised head and the bytes of the body that arrived with it.
/// `None` if the connection ended before the first byte.
fn poll_head<S: Read + Unpin>(
    inner: &mut S,
    cx: &mut Context<'_>,
    read: &mut Vec<u8>,
) -> Poll<io::Result<Option<Vec<u8>>>> {
    loop {
        let mut space = [std::mem::MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *inner).poll_read(cx, buffer.unfilled()))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(if read.is_empty() { Ok(None) } else { Err(unusable_head(&head::truncated(read))) });
        }
        let mut seen = read.len();
        read.extend_from_slice(buffer.filled());
        while let Some(end) = head::end_of_head(read, seen) {
            let clean = head::normalize(&read[..end]).map_err(|error| unusable_head(&error))?;
            if !clean.is_interim {
                let mut held = clean.bytes;
                held.extend_from_slice(&read[end..]);
                return Poll::Ready(Ok(Some(held)));
            }
            read.drain(..end);
            seen = 0;
        }
        head::check_prefix(read).map_err(|error| unusable_head(&error))?;
    }
}

/// The request was not sent completely, and there was no response.
fn unsent() -> io::Error {
    let detail = "the receiver closed the connection before the request was sent";
    io::Error::new(io::ErrorKind::ConnectionAborted, Failure::new(ErrorClass::Broken, detail).unprocessed())
}

fn unusable_head(error: &head::HeadError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Failure::new(ErrorClass::Broken, &error.to_string()))
}

impl<S: Write + Unpin> TolerantHttp1<S> {
    /// Handles the result of a write. Returns the number of bytes of `slices` that are consumed.
    fn handle_write(&mut self, written: io::Result<usize>, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let Some(http1) = &mut self.http1 else { return written };
        let count = match written {
            Err(_) if http1.request.is_idle() => return Err(unsent()),
            Err(_) => {
                http1.discards_request = true;
                slices.iter().map(|slice| slice.len()).sum()
            }
            Ok(count) => count,
        };
        let mut left = count;
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            http1.track(part);
            left -= part.len();
        }
        Ok(count)
    }

    fn discards_request(&self) -> bool {
        self.http1.as_ref().is_some_and(|http1| http1.discards_request)
    }
}

impl Http1 {
    /// Tracks the written bytes, to detect the start of the next response.
    fn track(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.request {
                RequestState::Head(written) => {
                    if written.is_empty() {
                        self.response = ResponseState::Head(Vec::new());
                    }
                    let seen = written.len();
                    written.extend_from_slice(bytes);
                    let Some(end) = head::end_of_head(written, seen) else { return };
                    bytes = &bytes[end - seen..];
                    self.request = match content_length(&written[..end]) {
                        0 => RequestState::default(),
                        length => RequestState::Body(length),
                    };
                }
                RequestState::Body(left) => {
                    let part = bytes.len().min(*left);
                    bytes = &bytes[part..];
                    *left -= part;
                    if *left == 0 {
                        self.request = RequestState::default();
                    }
                }
            }
        }
    }
}

/// The `content-length` of a request written by our own client.
fn content_length(head: &[u8]) -> usize {
    let lines = head.split(|byte| *byte == b'\n');
    let value = lines.filter_map(|line| line.split_at_checked(b"content-length:".len()));
    let mut value = value.filter(|(name, _)| name.eq_ignore_ascii_case(b"content-length:"));
    value.next().and_then(|(_, value)| std::str::from_utf8(value).ok()?.trim().parse().ok()).unwrap_or(0)
}

impl<S: Write + Unpin> Write for TolerantHttp1<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.discards_request() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes));
        Poll::Ready(this.handle_write(written, &[io::IoSlice::new(bytes)]))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.discards_request() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, slices));
        Poll::Ready(this.handle_write(written, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.discards_request() {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(Pin::new(&mut this.inner).poll_flush(cx));
        Poll::Ready(match (&mut this.http1, flushed) {
            // Only TLS buffers written bytes, so the request is cut off within the buffered part.
            (Some(http1), Err(_)) if matches!(http1.response, ResponseState::Head(_)) => {
                http1.discards_request = true;
                Ok(())
            }
            (_, flushed) => flushed,
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
