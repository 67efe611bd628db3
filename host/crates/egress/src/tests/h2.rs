//! HTTP/2: many attempts over one connection, and their results if it becomes unresponsive.

use futures_util::future::join_all;
use setgate_domain::attempt::HttpVersion;
use tokio::io::copy_bidirectional;
use tokio::sync::watch;

use super::tls::{Asks, Authority, post_as, tls_receiver};
use super::*;

#[tokio::test]
async fn h2_multiplexes_attempts_on_one_connection() {
    let authority = Authority::new();
    let (port, connections) = tls_receiver(&authority.issue("localhost"), &["h2", "http/1.1"], Asks::Nothing).await;
    let egress = egress(open());
    let plain = Plain { identity: authority.trusted(), ..Plain::to(&format!("https://localhost:{port}/")) };
    let first = egress.post(plain.post()).await;
    assert_eq!(first.connection.map(|connection| connection.http), Some(HttpVersion::Http2));
    for exchange in join_all((0..64).map(|_| egress.post(plain.post()))).await {
        assert!(exchange.outcome.is_success(), "{exchange:?}");
        assert_eq!(exchange.connection.map(|connection| connection.http), Some(HttpVersion::Http2));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

/// A relay in front of a receiver. After a signal on `dead` it keeps its existing connections open but forwards
/// nothing. New connections work.
async fn line_to(port: u16, dead: watch::Receiver<bool>) -> u16 {
    receiver(move |mut near| {
        let mut dead = dead.clone();
        dead.mark_unchanged();
        async move {
            let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = dead.changed() => std::future::pending().await,
            }
        }
    })
    .await
}

#[tokio::test]
async fn dead_connection_fails_only_its_own_requests() {
    let authority = Authority::new();
    let (port, connections) = tls_receiver(&authority.issue("localhost"), &["h2"], Asks::Nothing).await;
    let (die, dead) = watch::channel(false);
    let port = line_to(port, dead).await;
    // Without the pings, each attempt would time out only after a minute.
    let wait = 60_000;
    let options = Options { ping_every_ms: 100, ping_ms_max: 300, head_ms_max: wait, response_ms_max: wait, ..open() };
    let (egress, url) = (egress(options), format!("https://localhost:{port}/"));
    assert!(post_as(&egress, &url, authority.trusted()).await.is_success());
    die.send_replace(true);
    let waiting = (0..4).map(|_| post_as(&egress, &url, authority.trusted()));
    for outcome in join_all(waiting).await {
        assert_failed(&outcome, ErrorClass::Broken, "");
    }
    assert!(post_as(&egress, &url, authority.trusted()).await.is_success());
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}
