//! A connection on which HTTP/1 answers are read as curl and Node read them. It stands between the connection and the
//! HTTP client; HTTP/2 passes through it.
//!
//! Two things are different from the plain connection. The head of each answer is held until it is complete, then
//! cleaned by [`head`] and passed on, interim ones (1xx) left out. And a request that can no longer be written is no
//! error yet: a receiver that answers early and closes (413) resets the connection under the rest of the request, and
//! what it said can still be read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

use super::failure::Failure;
use super::head;
use crate::domain::attempt::ErrorClass;

/// Bytes of a head that are read at once.
const READ_BYTES: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Lenient<S> {
    inner: S,
    /// None for HTTP/2.
    http1: Option<Http1>,
}

#[derive(Debug, Default)]
struct Http1 {
    answer: Answer,
    request: Request,
    /// Whether the rest of the request is thrown away, since it cannot be written.
    cut_off: bool,
}

/// How far the answer has come.
#[derive(Debug, Default)]
enum Answer {
    /// Its head is incomplete; these bytes of it were read.
    Head(Vec<u8>),
    /// Bytes that were read and not passed on yet, from that one on.
    Held(Vec<u8>, usize),
    /// In its body, or between two exchanges: what comes is passed on as it is.
    #[default]
    Body,
}

/// How far the request has been written. Every request of ours has a `content-length`.
#[derive(Debug)]
enum Request {
    /// Its head, with what was written of it.
    Head(Vec<u8>),
    /// Its body, with the bytes left.
    Body(usize),
}

impl Default for Request {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Request {
    /// Whether the last one was written whole, and nothing of the next one.
    fn is_none_under_way(&self) -> bool {
        matches!(self, Self::Head(written) if written.is_empty())
    }
}

impl<S: Connection> Lenient<S> {
    pub(super) fn new(inner: S) -> Self {
        let http1 = (!inner.connected().is_negotiated_h2()).then(Http1::default);
        Self { inner, http1 }
    }
}

impl<S: Connection> Connection for Lenient<S> {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}

impl<S: Read + Unpin> Read for Lenient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(http1) = &mut this.http1 else { return Pin::new(&mut this.inner).poll_read(cx, into) };
        if let Answer::Head(read) = &mut http1.answer {
            let head = ready!(poll_head(&mut this.inner, cx, read));
            let is_unsent = read.is_empty() && (http1.cut_off || !http1.request.is_none_under_way());
            match head {
                Ok(Some(held)) => http1.answer = Answer::Held(held, 0),
                // Without the rest of the request nobody can have acted on it.
                Ok(None) | Err(_) if is_unsent => return Poll::Ready(Err(unsent())),
                // The end of the connection: the client says what that means.
                Ok(None) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        match &mut http1.answer {
            Answer::Held(held, passed) => {
                let left = &held[*passed..];
                let count = left.len().min(into.remaining());
                into.put_slice(&left[..count]);
                *passed += count;
                if *passed == held.len() {
                    http1.answer = Answer::Body;
                }
                Poll::Ready(Ok(()))
            }
            Answer::Head(_) | Answer::Body => Pin::new(&mut this.inner).poll_read(cx, into),
        }
    }
}

/// Reads the head of a final answer: it, cleaned, and what came with it of the body. None if the connection ended before
/// anything came.
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
            return Poll::Ready(if read.is_empty() { Ok(None) } else { Err(unusable(&head::ended(read))) });
        }
        let mut seen = read.len();
        read.extend_from_slice(buffer.filled());
        while let Some(end) = head::end(read, seen) {
            let clean = head::clean(&read[..end]).map_err(|error| unusable(&error))?;
            if !clean.is_interim {
                let mut held = clean.bytes;
                held.extend_from_slice(&read[end..]);
                return Poll::Ready(Ok(Some(held)));
            }
            read.drain(..end);
            seen = 0;
        }
        head::check_begin(read).map_err(|error| unusable(&error))?;
    }
}

/// The request was not sent as a whole, and nothing came back.
fn unsent() -> io::Error {
    let detail = "the receiver closed the connection before the request was sent";
    io::Error::new(io::ErrorKind::ConnectionAborted, Failure::new(ErrorClass::Broken, detail).unprocessed())
}

fn unusable(error: &head::HeadError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Failure::new(ErrorClass::Broken, &error.to_string()))
}

impl<S: Write + Unpin> Lenient<S> {
    /// What writing came to: the bytes of `slices` that are done with.
    fn wrote(&mut self, written: io::Result<usize>, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let Some(http1) = &mut self.http1 else { return written };
        let count = match written {
            Err(_) if http1.request.is_none_under_way() => return Err(unsent()),
            Err(_) => {
                http1.cut_off = true;
                slices.iter().map(|slice| slice.len()).sum()
            }
            Ok(count) => count,
        };
        let mut left = count;
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            http1.follow(part);
            left -= part.len();
        }
        Ok(count)
    }

    fn is_cut_off(&self) -> bool {
        self.http1.as_ref().is_some_and(|http1| http1.cut_off)
    }
}

impl Http1 {
    /// Follows what is written, to know when the next answer begins.
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.request {
                Request::Head(written) => {
                    if written.is_empty() {
                        self.answer = Answer::Head(Vec::new());
                    }
                    let seen = written.len();
                    written.extend_from_slice(bytes);
                    let Some(end) = head::end(written, seen) else { return };
                    bytes = &bytes[end - seen..];
                    self.request = match content_length(&written[..end]) {
                        0 => Request::default(),
                        length => Request::Body(length),
                    };
                }
                Request::Body(left) => {
                    let part = bytes.len().min(*left);
                    bytes = &bytes[part..];
                    *left -= part;
                    if *left == 0 {
                        self.request = Request::default();
                    }
                }
            }
        }
    }
}

/// Of a request that our own client wrote.
fn content_length(head: &[u8]) -> usize {
    let lines = head.split(|byte| *byte == b'\n');
    let value = lines.filter_map(|line| line.split_at_checked(b"content-length:".len()));
    let mut value = value.filter(|(name, _)| name.eq_ignore_ascii_case(b"content-length:"));
    value.next().and_then(|(_, value)| std::str::from_utf8(value).ok()?.trim().parse().ok()).unwrap_or(0)
}

impl<S: Write + Unpin> Write for Lenient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_cut_off() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes));
        Poll::Ready(this.wrote(written, &[io::IoSlice::new(bytes)]))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_cut_off() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, slices));
        Poll::Ready(this.wrote(written, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_cut_off() {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(Pin::new(&mut this.inner).poll_flush(cx));
        Poll::Ready(match (&mut this.http1, flushed) {
            // Only TLS keeps bytes back: the request is cut off within what it kept.
            (Some(http1), Err(_)) if matches!(http1.answer, Answer::Head(_)) => {
                http1.cut_off = true;
                Ok(())
            }
            (_, flushed) => flushed,
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
