//! Clients that disconnect or close their side of the connection at various stages of a request.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::{get, put};
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http_body_util::BodyExt as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::tests::{NEVER_MS, h2, serving_with};
use super::*;

/// Longer than any step takes on a busy machine. The endless responses write nothing after their begin, so that no failed
/// write can end them.
const DEADLINE: Duration = Duration::from_secs(60);
const LARGE_BYTES: usize = 64 << 20;

/// Sends a signal when the response or handler that holds it is dropped.
struct Held(UnboundedSender<()>);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// How a client disconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// Closes its sending side and continues to read.
    Ends,
    Closes,
    Resets,
}

struct Story {
    address: SocketAddr,
    /// TLS configuration of the client if the listener uses TLS.
    tls: Option<Arc<rustls::ClientConfig>>,
    signals: UnboundedReceiver<()>,
}

impl Story {
    async fn start(tls: bool) -> Self {
        let (sender, signals) = unbounded_channel();
        let held = move || Held(sender.clone());
        let endless = |held: Held| {
            let pieces = stream::unfold((held, true), |(held, first)| async move {
                if !first {
                    std::future::pending::<()>().await;
                }
                Some((Ok::<_, Infallible>(Bytes::from_static(b"begin")), (held, false)))
            });
            Response::new(Body::from_stream(pieces))
        };
        let (for_tail, for_stream, for_wait, for_large) = (held.clone(), held.clone(), held.clone(), held);
        let tail = get(async move || {
            let mut response = endless(for_tail());
            response.extensions_mut().insert(UntilClientEnds);
            response
        });
        let waits = get(async move || {
            let held = for_wait();
            held.0.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        let large = get(async move || {
            let pieces = stream::unfold((for_large(), 0), |(held, sent)| async move {
                let piece = Bytes::from_static(&[b'x'; 64 << 10]);
                (sent < LARGE_BYTES).then(|| {
                    let sent = sent + piece.len();
                    (Ok::<_, Infallible>(piece), (held, sent))
                })
            });
            Response::new(Body::from_stream(pieces))
        });
        let slow = get(async || {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let pieces = stream::iter([b"one ", b"two ", b"end."]).then(async |piece| {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok::<_, Infallible>(Bytes::from_static(piece))
            });
            Body::from_stream(Box::pin(pieces))
        });
        let echo = put(async |mut body: Body| {
            let mut whole = Vec::new();
            while let Some(frame) = body.frame().await {
                // Slower than the client, so that bytes are read ahead.
                tokio::time::sleep(Duration::from_millis(1)).await;
                match frame {
                    Ok(frame) => whole.extend_from_slice(&frame.into_data().unwrap_or_default()),
                    Err(_) => return (StatusCode::BAD_REQUEST, Vec::new()),
                }
            }
            (StatusCode::OK, whole)
        });
        let app = axum::Router::new()
            .route("/", tail.clone())
            .route("/tail", tail)
            .route("/stream", get(async move || endless(for_stream())))
            .route("/waits", waits)
            .route("/large", large)
            .route("/slow", slow)
            .route("/echo", echo);
        let (server, client) = if tls { both_ends() } else { (None, None) };
        let address = serving_with(app, DEADLINE, NEVER_MS, server).await;
        Self { address, tls: client, signals }
    }

    /// Connects and sends a request.
    async fn ask(&self, leaves: Leaves, request: &str) -> Box<dyn Io> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        if leaves == Leaves::Resets {
            stream.set_zero_linger().unwrap();
        }
        let mut stream: Box<dyn Io> = match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let name = "localhost".try_into().unwrap();
                Box::new(tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await.unwrap())
            }
        };
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    /// Waits until the host drops a response or receives a request for `/waits`.
    async fn signal(&mut self, why: &str) {
        let signalled = tokio::time::timeout(DEADLINE, self.signals.recv()).await;
        assert_eq!(signalled, Ok(Some(())), "{why}");
    }
}

/// Reads until `part` has arrived.
async fn reads(stream: &mut Box<dyn Io>, part: &str) {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(part) {
        let byte = tokio::time::timeout(DEADLINE, stream.read_u8()).await.expect("it comes");
        read.push(byte.expect("the response goes on"));
    }
}

/// TLS configurations of the listener and its client.
fn both_ends() -> (Option<Arc<rustls::ServerConfig>>, Option<Arc<rustls::ClientConfig>>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let der: CertificateDer<'static> = certificate.der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Some(Arc::new(server)), Some(Arc::new(client)))
}

#[tokio::test]
async fn a_request_ends_with_its_client_at_once() {
    use Leaves::{Closes, Ends, Resets};
    for tls in [false, true] {
        let mut story = Story::start(tls).await;
        for (path, begin, ways) in [
            ("/tail", "begin", &[Ends, Closes, Resets][..]),
            ("/stream", "begin", &[Resets]),
            ("/waits", "", &[Resets]),
            ("/large", "xxx", &[Closes, Resets]),
        ] {
            for &leaves in ways {
                let mut stream = story.ask(leaves, &format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n")).await;
                reads(&mut stream, begin).await;
                if begin.is_empty() {
                    story.signal("the host has the request").await;
                }
                match leaves {
                    Ends => stream.shutdown().await.unwrap(),
                    Closes | Resets => drop(std::mem::replace(&mut stream, Box::new(tokio::io::empty()))),
                }
                story.signal(&format!("{path}, TLS {tls}: the client {leaves:?}")).await;
                if leaves == Ends {
                    // The connection ends too.
                    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await.expect("it ends");
                }
            }
        }
        // The client's side can end before the response begins.
        let mut stream = story.ask(Ends, "GET /tail HTTP/1.1\r\nhost: h\r\n\r\n").await;
        stream.shutdown().await.unwrap();
        story.signal("a client that has ended its side before").await;
    }
}

#[tokio::test]
async fn a_client_that_ends_its_side_gets_the_whole_of_a_response_that_ends() {
    for tls in [false, true] {
        let story = Story::start(tls).await;
        for close in ["", "connection: close\r\n"] {
            let mut stream = story.ask(Leaves::Ends, &format!("GET /slow HTTP/1.1\r\nhost: h\r\n{close}\r\n")).await;
            stream.shutdown().await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.contains("one ") && text.contains("two ") && text.contains("end."), "TLS {tls}: {text}");
            assert!(text.ends_with("0\r\n\r\n"), "TLS {tls}: {text}");
        }
        // Pipelined requests.
        let two = "GET /slow HTTP/1.1\r\nhost: h\r\n\r\nGET /slow HTTP/1.1\r\nhost: h\r\n\r\n";
        let mut stream = story.ask(Leaves::Ends, two).await;
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text.matches("end.").count(), 2, "TLS {tls}: {text}");
    }
}

#[tokio::test]
async fn a_body_that_is_read_slowly_arrives_as_it_was_sent() {
    for tls in [false, true] {
        let story = Story::start(tls).await;
        let body: Vec<u8> = (0..=250).cycle().take(3 << 20).collect();
        let head = format!("PUT /echo HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut stream = story.ask(Leaves::Ends, &head).await;
        stream.write_all(&body).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "TLS {tls}");
        assert!(answer.ends_with(&body), "TLS {tls}: it is the same");
        // An incomplete body is refused.
        let mut stream = story.ask(Leaves::Ends, &head).await;
        stream.write_all(&body[1..]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "TLS {tls}: {answer}");
    }
}

#[tokio::test]
async fn a_stream_of_http2_ends_with_its_client_as_before() {
    let mut story = Story::start(false).await;
    for resets in [true, false] {
        let mut client = TcpStream::connect(story.address).await.unwrap();
        h2::open(&mut client, 65_535).await;
        h2::get(&mut client, 1).await;
        // Until the first DATA frame of the response.
        while h2::next(&mut client).await.expect("a response") != (0, 1) {}
        if resets {
            client.write_all(&h2::frame(h2::RST_STREAM, 0, 1, &8_u32.to_be_bytes())).await.unwrap();
            story.signal("a stream that its client has reset").await;
        } else {
            drop(client);
            story.signal("a connection that its client has closed").await;
        }
    }
}
