//! A receiver that takes a delivery and then misbehaves, as servers in the wild do: below HTTP, byte by byte.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::wait::until;

/// How one request is answered. What does not end by itself ends when the other side hangs up.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    /// 204, as it should be.
    Well,
    /// Not at all.
    Hang,
    /// The head at once, and then nothing of the body.
    HangInBody,
    /// The head, byte by byte, without end.
    TrickleHead,
    /// The head at once, then the body byte by byte, without end.
    TrickleBody,
    /// The head and half of the body, then a reset.
    Reset,
    /// The head, then so many bytes of body as fast as they go.
    Flood(u64),
}

/// A receiver without manners; stops listening when dropped.
pub struct Rude {
    /// Where it listens.
    pub address: SocketAddr,
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
    /// Answers the first requests so, one after the other, and those after them well.
    pub async fn start(script: impl IntoIterator<Item = Manner>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port to listen on");
        let address = listener.local_addr().expect("a bound address");
        let book = Arc::new(Book { script: Mutex::new(script.into_iter().collect()), ..Book::default() });
        let open = Arc::clone(&book);
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&open)));
            }
        });
        Self { address, book, serving }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    /// How many requests have arrived so far.
    pub fn requests(&self) -> u64 {
        self.book.requests.load(Ordering::SeqCst)
    }

    /// Bytes of bodies that it could write so far.
    pub fn written(&self) -> u64 {
        self.book.written.load(Ordering::SeqCst)
    }

    /// Waits until the other side has hung up so often while it was still being answered.
    pub async fn hung_up(&self, times: u64) {
        until("the host hangs up", async || (self.book.hung_up.load(Ordering::SeqCst) >= times).then_some(())).await;
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, book: Arc<Book>) {
    while read_request(&mut stream).await.is_some() {
        book.requests.fetch_add(1, Ordering::SeqCst);
        let manner = book.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Manner::Well);
        let goes_on = misbehave(&mut stream, manner, &book).await;
        if !goes_on {
            return;
        }
    }
}

/// Answers one request; false where the connection is of no use any more.
async fn misbehave(stream: &mut TcpStream, manner: Manner, book: &Book) -> bool {
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
            // Not by a close, which would wait for what was written: an RST, now.
            stream.set_zero_linger().expect("a socket");
            false
        }
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

/// Waits for the other side to hang up.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    true
}

/// Sends a bit now and then, until the other side hangs up.
async fn trickle(stream: &mut TcpStream, bit: &[u8]) -> bool {
    while stream.write_all(bit).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// Reads one request to its end; none where there is no more.
async fn read_request(stream: &mut TcpStream) -> Option<()> {
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
    while read.len() < head + length {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
    Some(())
}
