//! A receiver that accepts a delivery and then misbehaves like some real servers: below HTTP, byte by byte.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificate::Issued;
use crate::wait::until;

/// The answer to one request. An answer without an end lasts until the other side disconnects.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    /// A regular 204.
    Well,
    /// No answer.
    Hang,
    /// The head, and then nothing of the body.
    HangInBody,
    /// The head, byte by byte, without end.
    TrickleHead,
    /// The head, then the body byte by byte, without end.
    TrickleBody,
    /// The head and half of the body, then a reset.
    Reset,
    /// The head, then this many bytes of body at full speed.
    Flood(u64),
    /// These bytes, and then the given end.
    Says(&'static str, Ends),
    /// These bytes before the body of the request was read, and then a close with unread bytes.
    Interrupts(&'static str),
}

/// The event after an answer.
#[derive(Debug, Clone, Copy)]
pub enum Ends {
    /// The next request.
    Not,
    /// The end of the connection, over TLS without a close notification.
    Close,
    /// A reset.
    Reset,
}

/// A connection, with or without TLS.
trait Line: AsyncRead + AsyncWrite + Send + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Line for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Line for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// A misbehaving receiver; stops listening on drop.
pub struct Rude {
    /// Its address.
    pub address: SocketAddr,
    scheme: &'static str,
    book: Arc<Book>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Book {
    script: Mutex<VecDeque<Manner>>,
    requests: AtomicU64,
    written: AtomicU64,
    hung_up: AtomicU64,
}

impl Rude {
    /// Starts a receiver that answers the first requests according to the script, and all others well.
    pub async fn start(script: impl IntoIterator<Item = Manner>) -> Self {
        Self::start_with(None, script).await
    }

    /// Starts one with TLS that supports only HTTP/1.1.
    pub async fn start_tls(issued: &Issued, script: impl IntoIterator<Item = Manner>) -> Self {
        let mut tls = ServerConfig::clone(&issued.server(None));
        tls.alpn_protocols.clear();
        Self::start_with(Some(TlsAcceptor::from(Arc::new(tls))), script).await
    }

    async fn start_with(tls: Option<TlsAcceptor>, script: impl IntoIterator<Item = Manner>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port to listen on");
        let address = listener.local_addr().expect("a bound address");
        let book = Arc::new(Book { script: Mutex::new(script.into_iter().collect()), ..Book::default() });
        let (open, scheme) = (Arc::clone(&book), if tls.is_some() { "https" } else { "http" });
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (book, tls) = (Arc::clone(&open), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, book).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, book).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, scheme, book, serving }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("{}://{}/in", self.scheme, self.address)
    }

    /// Number of requests so far.
    pub fn requests(&self) -> u64 {
        self.book.requests.load(Ordering::SeqCst)
    }

    /// Number of body bytes written so far.
    pub fn written(&self) -> u64 {
        self.book.written.load(Ordering::SeqCst)
    }

    /// Waits until the other side has disconnected this many times during an answer.
    pub async fn hung_up(&self, times: u64) {
        until("the host hangs up", async || (self.book.hung_up.load(Ordering::SeqCst) >= times).then_some(())).await;
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: impl Line, book: Arc<Book>) {
    while let Some((read, length)) = read_head(&mut stream).await {
        let manner = book.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Manner::Well);
        if let Manner::Interrupts(answer) = manner {
            book.requests.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(answer.as_bytes()).await;
            return;
        }
        if read_body(&mut stream, read, length).await.is_none() {
            return;
        }
        book.requests.fetch_add(1, Ordering::SeqCst);
        let goes_on = misbehave(&mut stream, manner, &book).await;
        if !goes_on {
            return;
        }
    }
}

/// Answers one request. Returns false if the connection is not usable any more.
async fn misbehave(stream: &mut impl Line, manner: Manner, book: &Book) -> bool {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
    let hung_up = match manner {
        Manner::Well => return stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.is_ok(),
        Manner::Hang => is_closed(stream).await,
        Manner::HangInBody => stream.write_all(HEAD).await.is_err() || is_closed(stream).await,
        Manner::TrickleHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx-slow: ").await.is_err() || trickle(stream, b"x").await
        }
        Manner::TrickleBody => stream.write_all(HEAD).await.is_err() || trickle(stream, b"1\r\nx\r\n").await,
        Manner::Reset => {
            let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf.";
            let _ = stream.write_all(half).await;
            // An immediate RST: a regular close would wait for the written bytes.
            stream.tcp().set_zero_linger().expect("a socket");
            false
        }
        Manner::Says(answer, ends) => {
            let written = stream.write_all(answer.as_bytes()).await.is_ok() && stream.flush().await.is_ok();
            if let Ends::Reset = ends {
                // The head must be read before the reset arrives.
                tokio::time::sleep(Duration::from_millis(100)).await;
                stream.tcp().set_zero_linger().expect("a socket");
            }
            return written && matches!(ends, Ends::Not);
        }
        Manner::Interrupts(_) => unreachable!("answered before its request was read"),
        Manner::Flood(bytes) => {
            let block = [b"10000\r\n".as_slice(), &[b'x'; 0x1_0000], b"\r\n"].concat();
            let mut left = bytes;
            let mut failed = stream.write_all(HEAD).await.is_err();
            while left > 0 && !failed {
                failed = stream.write_all(&block).await.is_err();
                left = left.saturating_sub(0x1_0000);
                book.written.fetch_add(if failed { 0 } else { 0x1_0000 }, Ordering::SeqCst);
            }
            failed
        }
    };
    if hung_up {
        book.hung_up.fetch_add(1, Ordering::SeqCst);
    }
    false
}

/// Waits for the other side to disconnect.
async fn is_closed(stream: &mut impl Line) -> bool {
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    true
}

/// Sends a few bytes from time to time until the other side disconnects.
async fn trickle(stream: &mut impl Line, bit: &[u8]) -> bool {
    while stream.write_all(bit).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// Reads the head of a request. Returns the part of the body that was read with it, and the body's length. `None` if
/// there is no further request.
async fn read_head(stream: &mut impl Line) -> Option<(Vec<u8>, usize)> {
    let mut read = Vec::new();
    let head = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    let length: usize = length.trim().parse().ok()?;
    Some((read.split_off(head), length))
}

/// Reads the rest of a body.
async fn read_body(stream: &mut impl Line, mut read: Vec<u8>, length: usize) -> Option<()> {
    while read.len() < length {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
    Some(())
}
