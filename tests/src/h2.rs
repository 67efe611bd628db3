//! Hand-written HTTP/2 as used in attacks: windows that never open, bodies that never arrive.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A connection.
pub struct Raw2 {
    stream: TcpStream,
    next_id: u32,
}

/// A frame received from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The head of an answer, on this stream.
    Head(u32),
    /// Bytes of an answer.
    Data(u32, usize),
    /// The stream was reset.
    Reset(u32),
    /// The connection is being closed.
    GoAway,
    /// The connection has ended.
    End,
    /// Any other frame.
    Other,
}

/// Connects from this local address: any of `127.0.0.0/8`.
///
/// # Errors
/// If it cannot be opened.
pub async fn connect_from(from: &str, base: &str) -> std::io::Result<TcpStream> {
    let to: SocketAddr = base.trim_start_matches("http://").parse().expect("an address");
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse().expect("an address"), 0))?;
    socket.connect(to).await
}

impl Raw2 {
    /// Opens a connection with this initial window of its streams.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub async fn open(from: &str, base: &str, window: u32) -> std::io::Result<Self> {
        let mut stream = connect_from(from, base).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        let settings = [[0, 4].as_slice(), &window.to_be_bytes()].concat();
        stream.write_all(&frame(SETTINGS, 0, 0, &settings)).await?;
        Ok(Self { stream, next_id: 1 })
    }

    /// Starts a request and returns its stream. With `whole` it has no body; otherwise the body follows.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        whole: bool,
    ) -> std::io::Result<u32> {
        let id = self.next_id;
        self.next_id += 2;
        let mut block = Vec::new();
        let pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "host")];
        for (name, value) in pseudo.iter().chain(headers) {
            // A literal field without indexing and with a new name (RFC 7541 section 6.2.2).
            block.push(0);
            for text in [name, value] {
                integer(&mut block, text.len());
                block.extend_from_slice(text.as_bytes());
            }
        }
        let flags = END_HEADERS | if whole { END_STREAM } else { 0 };
        self.stream.write_all(&frame(HEADERS, flags, id, &block)).await?;
        Ok(id)
    }

    /// Sends a part of a body.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn data(&mut self, id: u32, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(&frame(DATA, 0, id, bytes)).await
    }

    /// The next frame. Pings and settings are acknowledged automatically.
    pub async fn next(&mut self) -> Seen {
        let mut head = [0; 9];
        if self.stream.read_exact(&mut head).await.is_err() {
            return Seen::End;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if self.stream.read_exact(&mut payload).await.is_err() {
            return Seen::End;
        }
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (head[3], head[4] & ACK) {
            (HEADERS, _) => Seen::Head(id),
            (DATA, _) => Seen::Data(id, length),
            (RST_STREAM, _) => Seen::Reset(id),
            (GOAWAY, _) => Seen::GoAway,
            (PING, 0) => self.answer(PING, &payload).await,
            (SETTINGS, 0) => self.answer(SETTINGS, &[]).await,
            _ => Seen::Other,
        }
    }

    async fn answer(&mut self, kind: u8, payload: &[u8]) -> Seen {
        match self.stream.write_all(&frame(kind, ACK, 0, payload)).await {
            Ok(()) => Seen::Other,
            Err(_) => Seen::End,
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn integer(block: &mut Vec<u8>, value: usize) {
    let byte = |value: usize| u8::try_from(value).expect("less than 256");
    if value < 127 {
        return block.push(byte(value));
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push(byte(rest % 128 + 128));
        rest /= 128;
    }
    block.push(byte(rest));
}
