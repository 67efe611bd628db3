//! Connection sharing between tenants and endpoints.

use super::*;

/// A receiver with persistent connections, and their number.
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
    assert_eq!(egress.clients(), 2);
}

#[tokio::test]
async fn changed_options_open_new_connections() {
    let (url, connections) = keeping().await;
    let egress = egress(open());
    let other = egress.clone();
    post_of(&egress, "acme", &url).await;
    assert!(egress.prepare(open()).unwrap().is_none(), "the options are equal");

    let refused = egress.prepare(Options { connect_ms_max: 0, ..open() }).unwrap_err();
    assert!(refused.to_string().contains("egress.connect_ms_max"), "{refused}");
    let clients = egress.prepare(Options { response_bytes_kept: 7, ..open() }).unwrap().expect("others");
    post_of(&egress, "acme", &url).await;
    assert_eq!(connections.load(Ordering::SeqCst), 1, "nothing changes before it is applied");
    egress.replace(clients);
    post_of(&other, "acme", &url).await;
    assert_eq!(connections.load(Ordering::SeqCst), 2);

    let closed = egress.prepare(Options { allow: Vec::new(), ..open() }).unwrap().expect("others");
    egress.replace(closed);
    let outcome = post(&other, &url).await;
    assert!(matches!(outcome, Outcome::Failed { class: ErrorClass::Forbidden, .. }), "{outcome:?}");
}

#[tokio::test]
async fn ca_files_are_reloaded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let write = || std::fs::write(&file, tls::Authority::new().pem()).unwrap();
    write();
    let options = Options { ca_files: vec![file.clone()], ..open() };
    let egress = egress(options.clone());
    assert!(egress.prepare(options.clone()).unwrap().is_none());
    write();
    assert!(egress.prepare(options.clone()).unwrap().is_some(), "the same path with another CA");
    std::fs::write(&file, "").unwrap();
    assert!(egress.prepare(options).is_err());
}

#[tokio::test]
async fn least_recently_used_client_is_evicted() {
    let (url, connections) = keeping().await;
    let egress = egress(Options { clients_max: 1, ..open() });
    for (tenant, expected) in [("acme", 1), ("acme", 1), ("globex", 2), ("acme", 3), ("acme", 3)] {
        post_of(&egress, tenant, &url).await;
        assert_eq!(egress.clients(), 1, "{tenant}");
        assert_eq!(connections.load(Ordering::SeqCst), expected, "{tenant}");
    }
}

#[tokio::test]
async fn eviction_starts_with_tenant_with_most_clients() {
    let (url, connections) = keeping().await;
    let egress = egress(Options { clients_max: 4, ..open() });
    post_of(&egress, "globex", &url).await;
    // Many identities of one tenant, each with its own client.
    for _ in 0..9 {
        let plain = Plain { identity: tls::Authority::new().trusted(), ..Plain::to(&url) };
        assert!(egress.post(plain.post()).await.outcome.is_success());
    }
    assert_eq!((egress.clients(), connections.load(Ordering::SeqCst)), (4, 10));
    post_of(&egress, "globex", &url).await;
    assert_eq!(connections.load(Ordering::SeqCst), 10, "the other tenant's connection is still there");
}
