//! Tests with receivers on loopback, both conforming and misbehaving.

mod bodies;
mod documents;
mod h2;
mod heads;
mod lookups;
mod pools;
mod proxy;
mod record;
mod resolve;
mod timeouts;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use setgate_base::clock::Clock;
use setgate_domain::attempt::{ErrorClass, Outcome};
use setgate_domain::endpoint::Destination;
use setgate_domain::id::TenantId;
use setgate_domain::redact::Redactor;
use setgate_domain::time::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;

const BODY: &str = r#"{"test": 2432232314}"#;

/// Options with loopback and plain http allowed, and short timeouts.
fn open() -> Options {
    let allow = ["127.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap()).to_vec();
    Options { allow, allow_http: true, connect_ms_max: 1000, response_ms_max: 2000, ..Options::default() }
}

fn egress(options: Options) -> Egress {
    let clock = Clock::manual(Timestamp::parse("1994-11-06T08:47:37Z").unwrap());
    Egress::new(options, clock, Vec::new()).unwrap()
}

/// A minimal attempt of one tenant. Tests override the relevant parts.
struct Plain {
    tenant: TenantId,
    endpoint: Destination,
    secrets: Redactor,
    identity: TlsIdentity,
}

impl Plain {
    fn to(url: &str) -> Self {
        let endpoint = Destination::parse(url).unwrap();
        Self {
            tenant: "acme".parse().unwrap(),
            endpoint,
            secrets: Redactor::default(),
            identity: TlsIdentity::default(),
        }
    }

    fn post(&self) -> PostRequest<'_> {
        PostRequest {
            tenant: &self.tenant,
            endpoint: &self.endpoint,
            identity: &self.identity,
            redactor: &self.secrets,
            headers: &[],
            content_type: "application/json",
            body: Bytes::from_static(BODY.as_bytes()),
            timeout: None,
        }
    }
}

async fn exchange(egress: &Egress, url: &str) -> Exchange {
    egress.post(Plain::to(url).post()).await
}

/// The outcome of an attempt without the response headers.
async fn post(egress: &Egress, url: &str) -> Outcome {
    let mut outcome = exchange(egress, url).await.outcome;
    if let Outcome::Answered { headers, .. } = &mut outcome {
        headers.clear();
    }
    outcome
}

/// Lets the connection of a finished response return to its pool, which only requires the tasks to be polled.
async fn put_back() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

#[track_caller]
fn assert_failed(outcome: &Outcome, expected: ErrorClass, word: &str) {
    match outcome {
        Outcome::Failed { class, detail } => {
            assert_eq!(*class, expected, "{detail}");
            assert!(detail.contains(word), "{detail}");
        }
        other => panic!("{other:?}"),
    }
}

fn answered(status: u16, body_head: &str) -> Outcome {
    let mut outcome = Outcome::status(status);
    if let Outcome::Answered { body_head: said, .. } = &mut outcome {
        body_head.clone_into(said);
    }
    outcome
}

/// Listens on loopback and runs `serve` for each connection. Returns the port.
async fn receiver<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

/// Reads one request with the body that all tests send. `None` if the client has closed the connection.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    while !read.ends_with(BODY.as_bytes()) {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
    String::from_utf8(read).ok()
}

/// A receiver that answers every request on every connection with the same bytes. Returns the URL.
async fn answering(answer: &'static str) -> String {
    let port = receiver(move |mut stream| async move {
        while request(&mut stream).await.is_some() && stream.write_all(answer.as_bytes()).await.is_ok() {}
    })
    .await;
    format!("http://127.0.0.1:{port}/")
}

#[tokio::test]
async fn outcome_has_status_and_body_of_response() {
    let egress = egress(open());
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", answered(200, "ok")),
        ("HTTP/1.1 204 No Content\r\n\r\n", answered(204, "")),
        ("HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n3\r\nbad\r\n0\r\n\r\n", answered(500, "bad")),
        ("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", answered(410, "")),
    ] {
        let outcome = post(&egress, &answering(answer).await).await;
        assert_eq!(outcome, expected);
        assert_eq!(outcome.is_success(), answer.contains("1.1 2"));
    }
}

#[tokio::test]
async fn sends_request_as_given() {
    let (sender, mut requests) = mpsc::unbounded_channel();
    let port = receiver(move |mut stream| {
        let sender = sender.clone();
        async move {
            sender.send(request(&mut stream).await.unwrap()).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let own = [("Authorization".to_owned(), "Bearer t".to_owned())];
    let endpoint = Destination::parse(&format!("http://127.0.0.1:{port}/in?a=b#part")).unwrap().with_headers(own);
    let plain = Plain { endpoint, ..Plain::to("http://x/") };
    let headers = [("webhook-id", "dlv_1".to_owned()), ("x-hub-signature", "sha256=00".to_owned())];
    let post = PostRequest { headers: &headers, content_type: "application/secevent+jwt", ..plain.post() };
    let exchange = egress(open()).post(post).await;
    assert!(exchange.outcome.is_success() && exchange.latency_us > 0, "{exchange:?}");
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("POST /in?a=b HTTP/1.1\r\n"), "{request}");
    for line in [
        format!("host: 127.0.0.1:{port}"),
        format!("user-agent: Setgate/{}", env!("CARGO_PKG_VERSION")),
        "authorization: Bearer t".to_owned(),
        "content-type: application/secevent+jwt".to_owned(),
        format!("content-length: {}", BODY.len()),
        "webhook-id: dlv_1".to_owned(),
        "x-hub-signature: sha256=00".to_owned(),
    ] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "{line} in {request}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let hits = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&hits);
    let elsewhere = receiver(move |_| {
        seen.fetch_add(1, Ordering::SeqCst);
        async {}
    })
    .await;
    for status in [301, 302, 303, 307, 308] {
        let answer =
            format!("HTTP/1.1 {status} X\r\nlocation: http://127.0.0.1:{elsewhere}/\r\ncontent-length: 0\r\n\r\n");
        let outcome = post(&egress(open()), &answering(answer.leak()).await).await;
        assert_eq!(outcome, answered(status, ""));
    }
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn retry_after_is_read_in_both_forms() {
    let egress = egress(open());
    for (value, expected) in [("30", Some(30)), ("Sun, 06 Nov 1994 08:49:37 GMT", Some(120)), ("later", None)] {
        let answer = format!("HTTP/1.1 429 Slow\r\nretry-after: {value}\r\ncontent-length: 0\r\n\r\n");
        match post(&egress, &answering(answer.leak()).await).await {
            Outcome::Answered { status: 429, retry_after_s, .. } => assert_eq!(retry_after_s, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn connection_is_reused_and_stale_one_replaced() {
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&connections);
    let port = receiver(move |mut stream| {
        seen.fetch_add(1, Ordering::SeqCst);
        async move {
            for _ in 0..2 {
                if request(&mut stream).await.is_some() {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            }
        }
    })
    .await;
    let (egress, url) = (egress(open()), format!("http://127.0.0.1:{port}/"));
    for (nth, expected) in [(1, 1), (2, 1), (3, 2)] {
        assert_eq!(post(&egress, &url).await, answered(200, ""), "request {nth}");
        assert_eq!(connections.load(Ordering::SeqCst), expected, "request {nth}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn large_body_is_not_read_to_its_end() {
    for head in ["content-length: 1073741824\r\n\r\n", "transfer-encoding: chunked\r\n\r\n"] {
        let (sender, mut sent) = mpsc::unbounded_channel();
        let port = receiver(move |mut stream| {
            let sender = sender.clone();
            async move {
                request(&mut stream).await;
                let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}").as_bytes()).await;
                let block = [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat();
                let mut count = 0usize;
                while count < 1 << 30 && stream.write_all(&block).await.is_ok() {
                    count += block.len();
                }
                sender.send(count).unwrap();
            }
        })
        .await;
        match post(&egress(open()), &format!("http://127.0.0.1:{port}/")).await {
            Outcome::Answered { status: 200, body_head, .. } => assert_eq!(body_head.len(), 2048),
            other => panic!("{other:?}"),
        }
        // At most the bytes that fit into the socket buffers were sent.
        let count = sent.recv().await.unwrap();
        assert!(count < 32 << 20, "{count} bytes");
    }
}

#[tokio::test]
async fn endless_head_is_rejected() {
    let port = receiver(|mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    let outcome = post(&egress(open()), &format!("http://127.0.0.1:{port}/")).await;
    assert_failed(&outcome, ErrorClass::Broken, "");
}

#[tokio::test]
async fn aborted_response_is_classified_as_broken() {
    for answer in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\na: b\r\n", "SSH-2.0-x\r\n"] {
        let port = receiver(move |mut stream| async move {
            request(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        let outcome = post(&egress(open()), &format!("http://127.0.0.1:{port}/")).await;
        assert_failed(&outcome, ErrorClass::Broken, "");
    }
    // Closed with unread bytes, which causes a reset.
    let port = receiver(|stream| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(stream);
    })
    .await;
    let outcome = post(&egress(open()), &format!("http://127.0.0.1:{port}/")).await;
    assert_failed(&outcome, ErrorClass::Broken, "");
}

#[tokio::test]
async fn closed_port_is_classified_as_connect() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let outcome = post(&egress(open()), &format!("http://127.0.0.1:{port}/")).await;
    assert_failed(&outcome, ErrorClass::Connect, "refused");
}

#[tokio::test]
async fn unknown_name_is_classified_as_resolve() {
    let outcome =
        post(&egress(Options { connect_ms_max: 10_000, response_ms_max: 10_000, ..open() }), "http://setgate.invalid/")
            .await;
    assert_failed(&outcome, ErrorClass::Resolve, "does not resolve");
}

#[tokio::test]
async fn loopback_is_blocked_in_all_notations() {
    let hits = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&hits);
    let port = receiver(move |_| {
        seen.fetch_add(1, Ordering::SeqCst);
        async {}
    })
    .await;
    let egress = egress(Options { allow_http: true, ..Options::default() });
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
    ] {
        for scheme in ["http", "https"] {
            let outcome = post(&egress, &format!("{scheme}://{host}:{port}/")).await;
            assert_failed(&outcome, ErrorClass::Forbidden, "egress.allow");
        }
    }
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn plain_http_and_own_listeners_are_blocked() {
    let url = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let outcome = post(&egress(Options { allow_http: false, ..open() }), &url).await;
    assert_failed(&outcome, ErrorClass::Forbidden, "egress.allow_http");
    let port = url.trim_end_matches('/').rsplit(':').next().unwrap();
    for own in [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}"), format!("[::]:{port}")] {
        let egress = Egress::new(open(), Clock::system(), vec![own.parse().unwrap()]).unwrap();
        assert_failed(&post(&egress, &url).await, ErrorClass::Forbidden, "own listener");
    }
}

#[tokio::test]
async fn invalid_headers_are_unsendable() {
    let headers = [("webhook-id", "a\r\nb".to_owned())];
    let plain = Plain::to("https://receiver.example/");
    let exchange = egress(open()).post(PostRequest { headers: &headers, ..plain.post() }).await;
    assert_failed(&exchange.outcome, ErrorClass::Unsendable, "`webhook-id`");
}

#[test]
fn settings_have_defaults_and_zero_is_refused() {
    let settings: Settings = serde_json::from_str(r#"{"allow": ["10.0.0.0/8"], "response_ms_max": 10000}"#).unwrap();
    let options = Options::from(&settings);
    assert_eq!((options.response_ms_max, options.connect_ms_max, options.allow_http), (10_000, 5_000, false));
    assert!(serde_json::from_str::<Settings>(r#"{"alow": []}"#).is_err());
    for (zero, name) in [
        (Options { connect_ms_max: 0, ..Options::default() }, "connect_ms_max"),
        (Options { head_ms_max: 0, ..Options::default() }, "head_ms_max"),
        (Options { clients_max: 0, ..Options::default() }, "clients_max"),
    ] {
        let refused = Egress::new(zero, Clock::system(), Vec::new());
        assert!(matches!(refused, Err(Error::Zero(named)) if named == name), "{name}");
    }
}
