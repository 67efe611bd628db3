//! Receivers that exceed a timeout in different ways.

use super::bodies::incomplete;
use super::*;

/// Long enough that another timeout fires first.
const NEVER_MS: u32 = 60_000;

/// A receiver that sends these bytes after a request, and then single bytes without end.
async fn trickling(at_once: &'static [u8]) -> String {
    let port = receiver(move |mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(at_once).await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    format!("http://127.0.0.1:{port}/")
}

/// A receiver that sends these bytes after a request, and then nothing.
async fn hanging(at_once: &'static [u8]) -> String {
    let port = receiver(move |mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(at_once).await;
        std::future::pending::<()>().await;
    })
    .await;
    format!("http://127.0.0.1:{port}/")
}

#[tokio::test]
async fn missing_head_times_out() {
    let options = Options { head_ms_max: 200, response_ms_max: NEVER_MS, ..open() };
    for url in
        [hanging(b"").await, hanging(b"HTTP/1.1 200 OK\r\nx-a: ").await, trickling(b"HTTP/1.1 200 OK\r\nx-a: ").await]
    {
        let exchange = exchange(&egress(options.clone()), &url).await;
        assert_failed(&exchange.outcome, ErrorClass::Timeout, "no response began within 200 ms");
        assert!(exchange.connection.is_some() && exchange.latency_us >= 200_000, "{exchange:?}");
    }
}

#[tokio::test]
async fn endless_body_times_out_and_status_counts() {
    let options = Options { head_ms_max: 300, response_ms_max: 400, ..open() };
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
    for url in [hanging(head).await, trickling(head).await, hanging(b"HTTP/1.1 200 OK\r\n\r\n").await] {
        let exchange = exchange(&egress(options.clone()), &url).await;
        assert_eq!(incomplete(&exchange.outcome), (200, Some("it did not end within 400 ms")));
        assert!(exchange.latency_us >= 400_000, "{exchange:?}");
    }
}

#[tokio::test]
async fn head_timeout_is_capped_by_response_timeout() {
    let options = Options { head_ms_max: NEVER_MS, response_ms_max: 200, ..open() };
    let outcome = post(&egress(options), &hanging(b"").await).await;
    assert_failed(&outcome, ErrorClass::Timeout, "no response began within 200 ms");
}

#[tokio::test]
async fn attempt_timeout_can_only_shorten() {
    let options = Options { head_ms_max: NEVER_MS, response_ms_max: 500, ..open() };
    let url = trickling(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
    for (within, fires) in [(300, "within 300 ms"), (u64::from(NEVER_MS), "within 500 ms")] {
        let plain = Plain::to(&url);
        let within = Some(Duration::from_millis(within));
        let exchange = egress(options.clone()).post(PostRequest { timeout: within, ..plain.post() }).await;
        let (_, why) = incomplete(&exchange.outcome);
        assert!(why.is_some_and(|why| why.contains(fires)), "{fires}: {exchange:?}");
    }
}
