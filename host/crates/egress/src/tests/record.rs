//! The record of an attempt.

use setgate_base::crypto;
use setgate_domain::attempt::{Connection, DeliveryDirective, HttpVersion};
use setgate_domain::id::Digest;

use super::*;

#[tokio::test]
async fn record_matches_sent_request_without_secrets() {
    let (sender, mut requests) = mpsc::unbounded_channel();
    let port = receiver(move |mut stream| {
        let sender = sender.clone();
        async move {
            sender.send(request(&mut stream).await.unwrap()).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let own = [("Authorization".to_owned(), "Bearer hush".to_owned())];
    let endpoint = Destination::parse(&format!("http://127.0.0.1:{port}/in?token=hush")).unwrap().with_headers(own);
    let plain = Plain { endpoint, ..Plain::to("http://x/") };
    let headers = [("webhook-id", "dlv_1".to_owned()), ("webhook-signature", "v1,abc".to_owned())];
    let exchange = egress(open()).post(PostRequest { headers: &headers, ..plain.post() }).await;

    let sent = exchange.sent.unwrap();
    assert_eq!(sent.url, format!("http://127.0.0.1:{port}/***sh"));
    assert_eq!((sent.body_digest, sent.body_bytes), (Digest(crypto::sha256(BODY.as_bytes())), BODY.len() as u64));
    assert!(!format!("{sent:?}").contains("hush"), "{sent:?}");
    let read = requests.recv().await.unwrap().replace("Bearer hush", "***");
    let head = read.split_once("\r\n\r\n").unwrap().0;
    let mut read: Vec<_> = head.lines().skip(1).map(str::to_owned).collect();
    let mut kept: Vec<_> = sent.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    read.sort();
    kept.sort();
    assert_eq!(kept, read);
    assert!(kept.contains(&"authorization: ***".to_owned()) && kept.contains(&"webhook-signature: v1,abc".to_owned()));

    let peer = Some(format!("127.0.0.1:{port}"));
    assert_eq!(exchange.connection, Some(Connection { http: HttpVersion::Http1, peer, proxied: false }));
}

#[tokio::test]
async fn record_has_connection_only_if_established() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let nowhere = exchange(&egress(open()), &format!("http://127.0.0.1:{port}/")).await;
    assert_failed(&nowhere.outcome, ErrorClass::Connect, "refused");
    assert!(nowhere.sent.is_some() && nowhere.connection.is_none(), "{nowhere:?}");

    let broken = exchange(&egress(open()), &answering("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n").await).await;
    assert!(broken.connection.is_some(), "{broken:?}");
}

#[tokio::test]
async fn response_headers_are_limited_and_cookies_redacted() {
    let answer =
        "HTTP/1.1 500 Oh\r\nServer: one\r\nSet-Cookie: session=hush\r\nX-Trace: abcdef\r\ncontent-length: 0\r\n\r\n";
    let headers = async |options| match exchange(&egress(options), &answering(answer).await).await.outcome {
        Outcome::Answered { headers, .. } => headers.into_iter().map(|(name, value)| name + "=" + &value).collect(),
        other => panic!("{other:?}"),
    };
    let all: Vec<String> = headers(open()).await;
    assert_eq!(all, ["server=one", "set-cookie=***", "x-trace=abcdef", "content-length=0"]);
    assert_eq!(headers(Options { response_headers_stored_max: 1, ..open() }).await, ["server=one"]);
    let short = Options { response_header_bytes_stored_max: 9 + 13 + 10, ..open() };
    assert_eq!(headers(short).await, ["server=one", "set-cookie=***", "x-trace=abc"]);
}

#[tokio::test]
async fn delivery_directive_is_read_from_response() {
    for (said, expected) in [
        ("webhook-delivery: disable\r\n", Some(DeliveryDirective::Disable)),
        ("Webhook-Delivery: ABORT\r\n", Some(DeliveryDirective::Abort)),
        ("webhook-delivery: perhaps\r\n", None),
        ("", None),
    ] {
        let answer = format!("HTTP/1.1 400 No\r\n{said}content-length: 0\r\n\r\n");
        match post(&egress(open()), &answering(answer.leak()).await).await {
            Outcome::Answered { status: 400, directive, .. } => assert_eq!(directive, expected, "{said}"),
            other => panic!("{other:?}"),
        }
    }
}
