//! Faults of the host itself and of other tenants, which do not count as failures of a receiver: no attempt is recorded
//! for them.

use std::net::UdpSocket;
use std::process::Command;

use setgate_tests::{Host, Ingest, Receiver, Reply, Seed, Tenant, event, place, until};

/// A DNS server that accepts every query and never answers. `None` if this story cannot run here.
fn silent_names(story: &str) -> Option<UdpSocket> {
    let may = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    let socket = may.then(|| UdpSocket::bind("127.77.0.1:53").ok()).flatten();
    if socket.is_none() {
        place::skip(story, "only root may give a process other name servers");
    }
    socket
}

/// A host that uses this server for names that are not in `/etc/hosts`.
async fn with_silent_names() -> Host {
    let folder = std::env::temp_dir().join(format!("setgate-names-{}", std::process::id()));
    std::fs::write(&folder, "nameserver 127.77.0.1\noptions timeout:30 attempts:1\n").unwrap();
    let script = format!(r#"mount --bind {} /etc/resolv.conf && exec "$0" "$@""#, folder.display());
    Host::with().through(&["unshare", "-m", "sh", "-c", &script]).start().await
}

/// Makes a tenant send to this many names that cannot be resolved.
async fn sends_nowhere(tenant: &Tenant, names: usize, events: usize) {
    let source = tenant.source("idp", Seed::Set).await;
    for name in 0..names {
        tenant.subscribe_url(&format!("http://dead{name}.{}.example/in", tenant.name)).create().await;
    }
    for nth in 0..events {
        source.accept(event::set(&format!("dead{nth}"))).await;
    }
}

#[tokio::test]
async fn unresolvable_names_cost_other_tenants_no_attempt() {
    let Some(_names) = silent_names("names that lead nowhere") else { return };
    let host = with_silent_names().await;
    for name in ["acme", "initech"] {
        sends_nowhere(&host.tenant(name).await, 10, 16).await;
    }
    let globex = host.tenant("globex").await;
    let source = globex.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    // By name, and with as many connections as deliveries.
    let url = format!("http://localhost:{}/in", receiver.address.port());
    let subscription = globex.subscribe_url(&url).create().await;
    for nth in 0..20 {
        let id = subscription.delivery_of(&source.accept(event::set(&format!("e{nth}"))).await);
        let delivered = globex.delivery_in("delivered", &id).await;
        assert_eq!(delivered["attempt_count"], 1, "{delivered}");
    }
}

/// Limits the number of files that a process can open.
fn limit_files(pid: u32, count: usize) {
    let limited = Command::new("prlimit").arg(format!("--pid={pid}")).arg(format!("--nofile={count}:")).status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit of util-linux works");
}

#[tokio::test]
async fn missing_descriptors_put_attempts_back() {
    let Ingest { host, acme, source } = &Ingest::start().await;
    let receiver = Receiver::start().await;
    // The second attempt needs a new connection, and there is no third attempt.
    receiver.answer([0; 2].map(|_| Reply::status(500).header("connection", "close")));
    let by_name = format!("http://localhost:{}/in", receiver.address.port());
    let (one, two) = (acme.subscribe(&receiver).retry(&[10]), acme.subscribe_url(&by_name).retry(&[10]));
    let subscriptions = [one.create().await, two.create().await];
    let accepted = source.accept(event::set("one")).await;
    let deliveries = subscriptions.each_ref().map(|subscription| subscription.delivery_of(&accepted));
    for delivery in &deliveries {
        until("the first attempt is recorded", async || {
            let answer = acme.client.get(&acme.path(&format!("/deliveries/{delivery}"))).await;
            (answer.status == 200 && answer.json()["attempt_count"] == 1).then_some(())
        })
        .await;
    }
    // Open files stay open, and no other file can be opened.
    limit_files(host.pid(), 0);
    until("the second attempts are put back", async || host.log().contains("lacks a resource").then_some(())).await;
    limit_files(host.pid(), 1_024);
    for delivery in &deliveries {
        let delivered = acme.delivery_in("delivered", delivery).await;
        assert_eq!(delivered["attempt_count"], 2, "{delivered}");
    }
    assert!(host.metric("setgate_attempts_put_back_total", &["cause=\"descriptors\""]).await >= 1.0);
}
