//! Who shares connections with whom.

use super::*;

/// A receiver that keeps its connections, and their count.
async fn keeping() -> (String, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let port = receiver(move |mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            while request(&mut stream).await.is_some() {
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    })
    .await;
    (format!("http://127.0.0.1:{port}/"), connections)
}

async fn post_of(egress: &Egress, tenant: &str, url: &str) {
    let plain = Plain { tenant: tenant.parse().unwrap(), ..Plain::to(url) };
    assert!(egress.post(plain.post()).await.outcome.is_success(), "{tenant}");
    put_back().await;
}

#[tokio::test]
async fn tenants_share_no_connections() {
    let (url, connections) = keeping().await;
    let egress = egress(open());
    for (tenant, expected) in [("acme", 1), ("acme", 1), ("globex", 2), ("acme", 2), ("globex", 2)] {
        post_of(&egress, tenant, &url).await;
        assert_eq!(connections.load(Ordering::SeqCst), expected, "{tenant}");
    }
    assert_eq!(egress.clients().await, 2);
}

#[tokio::test]
async fn the_client_that_rested_longest_makes_room() {
    let (url, connections) = keeping().await;
    let egress = egress(Options { clients_max: 1, ..open() });
    for (tenant, expected) in [("acme", 1), ("acme", 1), ("globex", 2), ("acme", 3), ("acme", 3)] {
        post_of(&egress, tenant, &url).await;
        assert_eq!(egress.clients().await, 1, "{tenant}");
        assert_eq!(connections.load(Ordering::SeqCst), expected, "{tenant}");
    }
}
