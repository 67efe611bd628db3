//! Name lookups: shared by tenants, and not charged to an attempt while queued.

use std::io;
use std::net::SocketAddr;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::watch;

use super::super::failure::host_shortage;
use super::*;

/// A resolver that does not answer names that begin with `dead` until they are released. All other names resolve to
/// this machine.
#[derive(Debug)]
struct Hanging {
    under_way: AtomicUsize,
    released: watch::Sender<bool>,
}

impl Hanging {
    fn new() -> Arc<Self> {
        Arc::new(Self { under_way: AtomicUsize::new(0), released: watch::Sender::new(false) })
    }

    async fn under_way(&self, count: usize) {
        while self.under_way.load(Ordering::SeqCst) != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Resolve for Hanging {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        if !host.starts_with("dead") {
            return async move { Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]) }.boxed();
        }
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let mut released = self.released.subscribe();
        async move {
            let _ = released.wait_for(|released| *released).await;
            Err(io::Error::other("no such name"))
        }
        .boxed()
    }
}

fn with(options: Options, resolver: &Arc<Hanging>) -> Egress {
    let resolver: Arc<dyn Resolve> = Arc::<Hanging>::clone(resolver);
    Egress::with_resolver(options, Clock::system(), Vec::new(), resolver).unwrap()
}

fn of(tenant: &str, url: &str) -> Plain {
    Plain { tenant: tenant.parse().unwrap(), ..Plain::to(url) }
}

/// Starts attempts of a tenant for that many unresponsive names in the background.
fn attempts_to_nowhere(egress: &Egress, tenant: &str, count: usize) -> Vec<tokio::task::JoinHandle<Exchange>> {
    let attempt = |nth: usize| {
        let (egress, plain) = (egress.clone(), of(tenant, &format!("http://dead{nth}.example/")));
        tokio::spawn(async move { egress.post(plain.post()).await })
    };
    (0..count).map(attempt).collect()
}

async fn port_of(answer: &'static str) -> String {
    answering(answer).await.trim_end_matches('/').rsplit(':').next().unwrap().to_owned()
}

#[tokio::test]
async fn slow_lookups_do_not_delay_other_tenants() {
    let resolver = Hanging::new();
    // Long enough that an attempt which waits for one of those lookups would never end.
    let wait = 3_600_000;
    let options = Options { connect_ms_max: wait, head_ms_max: wait, response_ms_max: wait, ..open() };
    let egress = with(options, &resolver);
    let mut attempts = Vec::new();
    for tenant in 0..20 {
        attempts.extend(attempts_to_nowhere(&egress, &format!("dead{tenant}"), 64));
    }
    // 20 own slots, and all shared slots.
    resolver.under_way(20 + 64).await;
    let port = port_of("HTTP/1.1 204 X\r\nconnection: close\r\n\r\n").await;
    for nth in 0..20 {
        let plain = of("globex", &format!("http://alive{nth}.example:{port}/"));
        assert!(egress.post(plain.post()).await.outcome.is_success());
    }
    attempts.iter().for_each(|attempt| attempt.abort());
}

#[tokio::test]
async fn concurrent_lookups_per_tenant_are_limited() {
    let resolver = Hanging::new();
    let wait = 3_600_000;
    let options = Options { connect_ms_max: wait, head_ms_max: wait, response_ms_max: wait, ..open() };
    let egress = with(options, &resolver);
    let attempts = attempts_to_nowhere(&egress, "acme", 64);
    resolver.under_way(9).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    resolver.under_way(9).await;
    // A cancelled lookup still occupies its slot, like its thread.
    attempts.iter().for_each(|attempt| attempt.abort());
    join_all(attempts).await;
    let more = attempts_to_nowhere(&egress, "acme", 1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    resolver.under_way(9).await;
    resolver.released.send_replace(true);
    for exchange in join_all(more).await {
        assert_failed(&exchange.unwrap().outcome, ErrorClass::Resolve, "no such name");
    }
}

#[tokio::test]
async fn lookup_queue_time_does_not_count_as_attempt_time() {
    let resolver = Hanging::new();
    // All timeouts are shorter than the time in the queue.
    let options = Options { connect_ms_max: 400, head_ms_max: 500, response_ms_max: 600, ..open() };
    let egress = with(options, &resolver);
    let dead = attempts_to_nowhere(&egress, "acme", 9);
    resolver.under_way(9).await;
    for exchange in join_all(dead).await {
        assert_failed(&exchange.unwrap().outcome, ErrorClass::Timeout, "");
    }
    let port = port_of("HTTP/1.1 204 X\r\nconnection: close\r\n\r\n").await;
    let plain = of("acme", &format!("http://alive.example:{port}/"));
    let release = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        resolver.released.send_replace(true);
    };
    let (exchange, ()) = tokio::join!(egress.post(plain.post()), release);
    assert!(exchange.outcome.is_success() && exchange.host_shortage.is_none(), "{exchange:?}");
    assert!(exchange.latency_us < 1_400_000, "nor is it the receiver's latency: {exchange:?}");
}

#[tokio::test]
async fn proxy_lookup_uses_no_tenant_slot() {
    let resolver = Hanging::new();
    let (asked, mut proxied) = mpsc::unbounded_channel();
    let port = receiver(move |mut stream| {
        let asked = asked.clone();
        async move {
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\n") && stream.read_buf(&mut read).await.is_ok_and(|read| read > 0) {}
            asked.send(String::from_utf8(read).unwrap()).unwrap();
        }
    })
    .await;
    let proxy = serde_json::from_value(serde_json::json!(format!("http://proxy.example:{port}"))).unwrap();
    let egress = with(Options { proxy: Some(proxy), connect_ms_max: 2_000, ..open() }, &resolver);
    let attempts = attempts_to_nowhere(&egress, "acme", 30);
    // All attempts reach the proxy although none of their names is ever resolved here.
    for _ in 0..30 {
        assert!(proxied.recv().await.unwrap().starts_with("CONNECT dead"));
    }
    join_all(attempts).await;
}

#[test]
fn host_shortage_is_distinguished_from_receiver_failure() {
    let said = |code| host_shortage(&io::Error::from_raw_os_error(code));
    let cases = [
        (24, Some(HostShortage::Descriptors)),
        (23, Some(HostShortage::Descriptors)),
        (12, Some(HostShortage::Memory)),
        (105, Some(HostShortage::Memory)),
        (99, Some(HostShortage::Ports)),
        (11, Some(HostShortage::Ports)),
        (111, None),
        (104, None),
        (110, None),
        (113, None),
        (101, None),
    ];
    for (code, expected) in cases {
        assert_eq!(said(code), expected, "{code}");
    }
    assert_eq!(host_shortage(&io::Error::other("no such name")), None);
}
