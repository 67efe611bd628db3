//! Responses with a complete head and an incomplete body: the status decides.

use setgate_domain::attempt::DeliveryDirective;

use super::tls::{Asks, Authority, tls_stream};
use super::*;

/// The status of a response, and the reason why its body is incomplete.
#[track_caller]
pub(super) fn incomplete(outcome: &Outcome) -> (u16, Option<&str>) {
    match outcome {
        Outcome::Answered { status, body_incomplete, .. } => (*status, body_incomplete.as_deref()),
        other => panic!("{other:?}"),
    }
}

/// A receiver that reads a request, writes these bytes, and closes or resets the connection.
async fn answering_once(answer: &'static [u8], resets: bool) -> String {
    let port = receiver(move |mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(answer).await;
        if resets {
            // Gives the client time to read the head.
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.set_zero_linger().unwrap();
        }
    })
    .await;
    format!("http://127.0.0.1:{port}/")
}

#[tokio::test]
async fn status_counts_even_if_body_is_incomplete() {
    let egress = egress(open());
    for (head, body) in [
        ("content-length: 10", "half"),
        ("content-length: 10", ""),
        ("transfer-encoding: chunked", "4\r\nhalf\r\n"),
        ("transfer-encoding: chunked", "4\r\nha"),
        ("transfer-encoding: chunked", "zz\r\nhalf\r\n"),
        ("transfer-encoding: chunked", "4\r\nhalfXX"),
        ("transfer-encoding: chunked", "4\r\nhalf\r\n0\r\n\x01bad\r\n\r\n"),
        ("transfer-encoding: chunked", ""),
    ] {
        for resets in [false, true] {
            for status in [200, 202, 299, 404, 410, 503] {
                let answer = format!("HTTP/1.1 {status} X\r\n{head}\r\n\r\n{body}");
                let outcome = post(&egress, &answering_once(answer.clone().leak().as_bytes(), resets).await).await;
                let (said, why) = incomplete(&outcome);
                assert!(said == status && why.is_some_and(|why| !why.is_empty()), "{answer:?}: {outcome:?}");
                assert_eq!(outcome.is_success(), status < 300);
            }
        }
    }
}

#[tokio::test]
async fn complete_body_is_recorded_as_complete() {
    let egress = egress(open());
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\nuntil the end",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nuntil the end",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\nd\r\nuntil the end\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nd\r\nuntil the end\r\n0\r\nx: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\ntransfer-encoding: chunked\r\n\r\nd\r\nuntil the end\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nuntil the end",
    ] {
        assert_eq!(
            post(&egress, &answering_once(answer.as_bytes(), false).await).await,
            answered(200, "until the end")
        );
    }
}

#[tokio::test]
async fn head_is_evaluated_without_the_body() {
    let answer = b"HTTP/1.1 503 Later\r\nretry-after: 77\r\nwebhook-delivery: disable\r\ncontent-length: 9\r\n\r\nhalf";
    match post(&egress(open()), &answering_once(answer, false).await).await {
        Outcome::Answered { status: 503, retry_after_s, directive, body_head, body_incomplete, .. } => {
            assert_eq!((retry_after_s, directive), (Some(77), Some(DeliveryDirective::Disable)));
            assert!(body_head == "half" && body_incomplete.is_some());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tls_close_without_notify_is_incomplete_body() {
    let authority = Authority::new();
    for answer in ["HTTP/1.0 200 OK\r\nserver: BaseHTTP/0.6 Python/3.11\r\n\r\nok", "HTTP/1.1 200 OK\r\n\r\n"] {
        let port = tls_stream(&authority.issue("localhost"), &[], Asks::Nothing, move |mut stream| async move {
            let mut read = Vec::new();
            while !read.ends_with(BODY.as_bytes()) {
                stream.read_buf(&mut read).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            // Closes the TCP connection without a TLS close_notify.
            drop(stream.into_inner().0);
        })
        .await;
        let plain = Plain { identity: authority.trusted(), ..Plain::to(&format!("https://localhost:{port}/")) };
        let outcome = egress(open()).post(plain.post()).await.outcome;
        let (status, why) = incomplete(&outcome);
        assert!(status == 200 && why.is_some_and(|why| why.contains("close_notify")), "{outcome:?}");
    }
}

/// More than the buffers of both sockets can hold.
fn large() -> Bytes {
    Bytes::from(vec![b'x'; 32 << 20])
}

#[tokio::test]
async fn early_response_counts() {
    for (status, waits) in [(200, false), (413, false), (413, true), (401, true)] {
        let port = receiver(move |mut stream| async move {
            let _ = stream.read(&mut [0; 64]).await;
            let answer = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno");
            let _ = stream.write_all(answer.as_bytes()).await;
            if waits {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            // The connection is closed with unread bytes, which causes a reset while the request is still being
            // written.
        })
        .await;
        let plain = Plain::to(&format!("http://127.0.0.1:{port}/"));
        let exchange = egress(open()).post(PostRequest { body: large(), ..plain.post() }).await;
        assert_eq!(incomplete(&exchange.outcome).0, status, "{exchange:?}");
    }
}

#[tokio::test]
async fn aborted_request_without_response_fails() {
    let (connections, seen) = counted();
    let port = receiver(move |mut stream| {
        seen.fetch_add(1, Ordering::SeqCst);
        async move {
            let _ = stream.read(&mut [0; 64]).await;
        }
    })
    .await;
    let plain = Plain::to(&format!("http://127.0.0.1:{port}/"));
    let exchange = egress(open()).post(PostRequest { body: large(), ..plain.post() }).await;
    assert_failed(&exchange.outcome, ErrorClass::Broken, "before the request was sent");
    assert_eq!(connections.load(Ordering::SeqCst), 4, "the number of resends is limited");
}

pub(super) fn counted() -> (Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    (Arc::clone(&count), count)
}
