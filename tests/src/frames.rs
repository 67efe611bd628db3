//! A receiver that implements HTTP/2 at the level of frames, so that it can end streams and connections in ways that
//! libraries do not allow (RFC 9113).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificate::Issued;

/// Error codes of HTTP/2 (RFC 9113 section 7).
pub mod code {
    #![expect(missing_docs, reason = "named as in the RFC")]
    pub const NO_ERROR: u32 = 0x0;
    pub const INTERNAL_ERROR: u32 = 0x2;
    pub const REFUSED_STREAM: u32 = 0x7;
    pub const CANCEL: u32 = 0x8;
    pub const ENHANCE_YOUR_CALM: u32 = 0xb;
    pub const HTTP_1_1_REQUIRED: u32 = 0xd;
}

/// The treatment of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treats {
    /// A regular 204.
    Well,
    /// Resets its stream with that code, without an answer.
    Resets(u32),
    /// Sends the head of an answer with status 200 and part of the body, then resets the stream with that code.
    ResetsInBody(u32),
    /// Sends GOAWAY with that code and the previous stream as the last one: this request was not processed.
    GoesAwayBefore(u32),
    /// Sends GOAWAY with that code and this stream as the last one, and closes the connection without an answer: this
    /// request may have been processed.
    GoesAwayAfter(u32),
}

/// A receiver of frames; stops listening on drop.
pub struct Frames {
    /// Its address.
    pub address: SocketAddr,
    book: Arc<Book>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Book {
    script: Mutex<VecDeque<Treats>>,
    treated: Mutex<Vec<Treats>>,
    over_http1: AtomicUsize,
    connections: AtomicUsize,
}

const HEADERS: u8 = 0x1;
const DATA: u8 = 0x0;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
/// `END_STREAM`, and the `ACK` of settings and pings.
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
/// `:status` 200 and 204 in the static table of HPACK (RFC 7541 appendix A).
const STATUS_200: u8 = 0x88;
const STATUS_204: u8 = 0x89;

impl Frames {
    /// Starts a receiver that treats the first requests according to the script, and all others well. It serves
    /// HTTP/1.1 to clients that request it.
    pub async fn start(issued: &Issued, script: impl IntoIterator<Item = Treats>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port to listen on");
        let address = listener.local_addr().expect("a bound address");
        let book = Arc::new(Book { script: Mutex::new(script.into_iter().collect()), ..Book::default() });
        let (open, tls) = (Arc::clone(&book), TlsAcceptor::from(issued.server(None)));
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (book, tls) = (Arc::clone(&open), tls.clone());
                connections.spawn(async move {
                    let Ok(mut stream) = tls.accept(stream).await else { return };
                    book.connections.fetch_add(1, Ordering::SeqCst);
                    // Clients may disconnect.
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        let _ = serve(&mut stream, &book).await;
                    } else {
                        let _ = serve_http1(&mut stream, &book).await;
                    }
                });
            }
        });
        Self { address, book, serving }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}/in", self.address)
    }

    /// The treatments of the requests that have arrived so far.
    pub fn treated(&self) -> Vec<Treats> {
        self.book.treated.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of requests that arrived over HTTP/1.1.
    pub fn over_http1(&self) -> usize {
        self.book.over_http1.load(Ordering::SeqCst)
    }

    /// Number of connections that were opened.
    pub fn connections(&self) -> usize {
        self.book.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

type Stream = TlsStream<TcpStream>;

async fn serve(stream: &mut Stream, book: &Book) -> std::io::Result<()> {
    const PREFACE_BYTES: usize = 24;
    stream.read_exact(&mut [0; PREFACE_BYTES]).await?;
    write(stream, SETTINGS, 0, 0, &[]).await?;
    let mut treats = Treats::Well;
    loop {
        let (kind, flags, id, payload) = read(stream).await?;
        match kind {
            SETTINGS if flags & END_STREAM == 0 => write(stream, SETTINGS, END_STREAM, 0, &[]).await?,
            PING if flags & END_STREAM == 0 => write(stream, PING, END_STREAM, 0, &payload).await?,
            HEADERS => {
                treats = next(book);
                match treats {
                    Treats::Resets(code) => write(stream, RST_STREAM, 0, id, &code.to_be_bytes()).await?,
                    Treats::GoesAwayBefore(code) => {
                        go_away(stream, id.saturating_sub(2), code).await?;
                        return end(stream).await;
                    }
                    _ => {}
                }
            }
            DATA if flags & END_STREAM != 0 => match treats {
                Treats::Well => write(stream, HEADERS, END_HEADERS | END_STREAM, id, &[STATUS_204]).await?,
                Treats::ResetsInBody(code) => {
                    write(stream, HEADERS, END_HEADERS, id, &[STATUS_200]).await?;
                    write(stream, DATA, 0, id, b"half").await?;
                    write(stream, RST_STREAM, 0, id, &code.to_be_bytes()).await?;
                }
                Treats::GoesAwayAfter(code) => {
                    go_away(stream, id, code).await?;
                    return end(stream).await;
                }
                // Frames of a stream that has ended already.
                Treats::Resets(_) | Treats::GoesAwayBefore(_) => {}
            },
            _ => {}
        }
    }
}

fn next(book: &Book) -> Treats {
    let treats = book.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Treats::Well);
    book.treated.lock().unwrap_or_else(PoisonError::into_inner).push(treats);
    treats
}

async fn go_away(stream: &mut Stream, last: u32, code: u32) -> std::io::Result<()> {
    write(stream, GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()).await
}

/// Ends the connection once the other side has read everything, since a reset could discard data in transit.
async fn end(stream: &mut Stream) -> std::io::Result<()> {
    stream.shutdown().await?;
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}

async fn write(stream: &mut Stream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &id.to_be_bytes()].concat();
    stream.write_all(&[&head, payload].concat()).await?;
    stream.flush().await
}

/// Reads a frame: its type, flags, stream and payload.
async fn read(stream: &mut Stream) -> std::io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let [a, b, c, kind, flags, rest @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).expect("a length");
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok((kind, flags, u32::from_be_bytes(rest), payload))
}

async fn serve_http1(stream: &mut Stream, book: &Book) -> std::io::Result<()> {
    let mut read = Vec::new();
    // The only request of the connection: deliveries end with the last brace of their JSON.
    while !(read.ends_with(b"}") && read.windows(4).any(|window| window == b"\r\n\r\n")) {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
    book.over_http1.fetch_add(1, Ordering::SeqCst);
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await?;
    stream.shutdown().await
}
