use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::http::listener::server::Server;

async fn start(head_ms_max: u64) -> SocketAddr {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = Listen { address: address.into(), connections_max: 1, head_ms_max, ..Listen::default() };
    let server = Server::bind_all(&settings).await.unwrap().remove(0);
    let address = server.address().unwrap();
    let app = axum::Router::new().route("/", axum::routing::get(async || "hello"));
    tokio::spawn(server.serve(app, CancellationToken::new()));
    address
}

async fn answer(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_connection_without_a_request_gives_its_slot_back() {
    let address = start(200).await;
    // Silence, and prefixes of both protocols.
    for begin in [b"".as_slice(), b"P", b"PRI * HTTP/2.0\r\n"] {
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(begin).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(10), idle.read(&mut [0; 8])).await;
        // Unread bytes cause a reset instead of a regular end.
        assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{begin:?}: {ended:?}");
        let text = tokio::time::timeout(Duration::from_secs(10), answer(address)).await.expect("the slot is free");
        assert!(text.ends_with("hello"), "{text}");
    }
}

#[tokio::test]
async fn a_request_in_pieces_is_answered() {
    let address = start(10_000).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in ["P", "UT / HTTP/1.1\r\nhost: h\r\nconnec", "tion: close\r\n\r\n"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 405"), "{text}");
}

#[tokio::test]
async fn a_client_that_is_refused_half_way_reads_why() {
    let address = start(10_000).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    // No route accepts a PUT, so the body is never read: the answer arrives long before the last byte has been sent.
    stream.write_all(b"PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 8000000\r\n\r\n").await.unwrap();
    for _ in 0..80 {
        stream.write_all(&[b'x'; 100_000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 405"), "{text}");
}

/// Hand-written HTTP/2: the preface, settings with an empty window, and requests whose responses are never read.
pub(super) mod h2 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const RST_STREAM: u8 = 3;

    pub(in super::super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// `window` is the client's initial window of streams.
    pub(in super::super) async fn open(stream: &mut TcpStream, window: u32) {
        let settings = [[0, 4].as_slice(), &window.to_be_bytes()].concat();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&frame(4, 0, 0, &settings)).await.unwrap();
    }

    /// `GET /`, in fields of the static table.
    pub(in super::super) async fn get(stream: &mut TcpStream, id: u32) {
        let head = [&[0x82, 0x84, 0x86, 0x01, 1], b"h".as_slice()].concat();
        stream.write_all(&frame(1, 5, id, &head)).await.unwrap();
    }

    /// Type and stream of the next frame. `None` if the connection ended.
    pub(in super::super) async fn next(stream: &mut TcpStream) -> Option<(u8, u32)> {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).await.ok()?;
        Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
    }
}

async fn serving(app: axum::Router, stall: Duration, idle_ms_max: u64) -> SocketAddr {
    serving_with(app, stall, idle_ms_max, None).await
}

pub(super) async fn serving_with(
    app: axum::Router,
    stall: Duration,
    idle_ms_max: u64,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> SocketAddr {
    let tls = tls.map(TlsAcceptor::from);
    let settings = Listen { idle_ms_max, ..Listen::default() };
    let mut context = ConnectionContext::new(app, &settings, CancellationToken::new());
    context.waits.stall = stall;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, address)) = listener.accept().await {
            tokio::spawn(context.clone().serve(stream, address, tls.clone()));
        }
    });
    address
}

pub(super) const NEVER_MS: u64 = 3_600_000;

#[tokio::test]
async fn a_stream_whose_client_takes_nothing_is_reset_and_the_others_go_on() {
    let large = axum::routing::get(async || vec![b'x'; 1 << 20]);
    let app = axum::Router::new().route("/", large);
    let address = serving(app, Duration::from_millis(500), NEVER_MS).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    h2::open(&mut client, 0).await;
    for id in [1, 3, 5] {
        h2::get(&mut client, id).await;
    }
    let mut reset = std::collections::BTreeSet::new();
    while reset.len() < 3 {
        let (kind, stream) = h2::next(&mut client).await.expect("the connection itself stays open");
        if kind == h2::RST_STREAM {
            reset.insert(stream);
        }
    }
    assert_eq!(reset.into_iter().collect::<Vec<_>>(), [1, 3, 5]);
}

#[tokio::test]
async fn a_stream_without_anything_to_send_is_not_stalled() {
    let waits = axum::routing::get(async || {
        tokio::time::sleep(Duration::from_millis(600)).await;
        let body = futures_util::stream::once(async {
            tokio::time::sleep(Duration::from_millis(600)).await;
            Ok::<_, Infallible>(bytes::Bytes::from_static(b"late"))
        });
        axum::body::Body::from_stream(body)
    });
    let app = axum::Router::new().route("/", waits);
    let address = serving(app, Duration::from_millis(200), NEVER_MS).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    h2::open(&mut client, 65_535).await;
    h2::get(&mut client, 1).await;
    loop {
        let (kind, stream) = h2::next(&mut client).await.expect("an answer");
        assert_ne!(kind, h2::RST_STREAM);
        if (kind, stream) == (0, 1) {
            break;
        }
    }
}

#[tokio::test]
async fn a_connection_that_has_no_request_ends_whatever_else_it_sends() {
    let app = axum::Router::new().route("/", axum::routing::get(async || "hello"));
    let address = serving(app, Duration::from_secs(60), 300).await;
    let settings = h2::frame(4, 0, 0, &[]);
    let ping = h2::frame(h2::PING, 0, 0, &[0; 8]);
    let window = h2::frame(8, 0, 0, &1_u32.to_be_bytes());
    for flood in [ping, settings, window] {
        let mut client = TcpStream::connect(address).await.unwrap();
        h2::open(&mut client, 65_535).await;
        h2::get(&mut client, 1).await;
        let (mut reading, mut writing) = client.into_split();
        let sends = tokio::spawn(async move {
            while writing.write_all(&flood).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let mut scratch = [0; 4096];
        let ended = async { while reading.read(&mut scratch).await.is_ok_and(|bytes| bytes > 0) {} };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the connection ends");
        drop(reading);
        tokio::time::timeout(Duration::from_secs(60), sends).await.expect("also for writing").unwrap();
    }
    // The same for HTTP/1, between two requests.
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(60), client.read_to_string(&mut text)).await.expect("it ends").unwrap();
    assert!(text.ends_with("hello"), "{text}");
}

#[tokio::test]
async fn a_client_of_http1_that_reads_nothing_is_given_up() {
    let large = axum::routing::get(async || vec![b'x'; 32 << 20]);
    let address = serving(axum::Router::new().route("/", large), Duration::from_millis(500), NEVER_MS).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut taken = 0;
    let mut scratch = vec![0; 1 << 20];
    while let Ok(bytes @ 1..) = client.read(&mut scratch).await {
        taken += bytes;
    }
    assert!(taken < 32 << 20, "what the kernel had, and no more: {taken}");
}
