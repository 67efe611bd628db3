//! Requests through a real proxy in this process.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

use base64::prelude::{BASE64_STANDARD, Engine};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::copy_bidirectional;

use super::resolve::{Scripted, egress_with};
use super::tls::{Asks, Authority, tls_receiver};
use super::*;

/// The behaviour of the proxy.
#[derive(Clone, Copy)]
enum Does {
    /// Connects to this local port, regardless of the requested name.
    LeadTo(u16),
    /// Sends these bytes and closes the connection.
    Say(&'static str),
}

/// A proxy. Returns its port and the heads of its requests.
async fn proxy(does: Does) -> (u16, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&asked);
    let port = receiver(move |mut near| {
        let heads = Arc::clone(&heads);
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if near.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            heads.lock().unwrap().push(String::from_utf8(head).unwrap());
            match does {
                Does::Say(text) => {
                    let _ = near.write_all(text.as_bytes()).await;
                }
                Does::LeadTo(port) => {
                    let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    let head = b"HTTP/1.1 200 Connection established\r\nvia : odd\r\n folded\r\nno field\r\n\r\n";
                    let _ = near.write_all(head).await;
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            }
        }
    })
    .await;
    (port, asked)
}

/// No address is allowed, because the proxy's own address needs no exception.
fn through(port: u16, bypass: &[&str]) -> Options {
    Options {
        allow: Vec::new(),
        proxy: Some(format!("http://me:hush@127.0.0.1:{port}").try_into().unwrap()),
        proxy_bypass: bypass.iter().map(|host| (*host).to_owned().try_into().unwrap()).collect(),
        ..open()
    }
}

#[tokio::test]
async fn tunnel_carries_tls_and_http_and_is_reused() {
    let authority = Authority::new();
    let (secure, _) = tls_receiver(&authority.issue("receiver.example"), &["h2"], Asks::Nothing).await;
    let plain = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let plain: u16 = plain.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    for (url, leads_to, asked_for) in [
        ("https://receiver.example/in", secure, "receiver.example:443"),
        ("http://receiver.example:8080/in", plain, "receiver.example:8080"),
    ] {
        let (port, asked) = proxy(Does::LeadTo(leads_to)).await;
        // The name does not resolve here, so it is left to the proxy.
        let egress = egress_with(through(port, &[]), &Scripted::new(&[&[]]));
        let to = Plain { identity: authority.trusted(), ..Plain::to(url) };
        for _ in 0..2 {
            let exchange = egress.post(to.post()).await;
            put_back().await;
            assert!(exchange.outcome.is_success(), "{exchange:?}");
            let connection = exchange.connection.clone().unwrap();
            assert_eq!((connection.proxied, connection.peer), (true, None));
            let shown = format!("{exchange:?}");
            let sent = exchange.sent.unwrap();
            assert!(
                !shown.contains("hush") && !sent.headers.iter().any(|(name, _)| name.starts_with("proxy")),
                "{shown}"
            );
        }
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(asked[0].starts_with(&format!("CONNECT {asked_for} HTTP/1.1\r\n")), "{asked:?}");
        let credentials = format!("proxy-authorization: Basic {}\r\n", BASE64_STANDARD.encode("me:hush"));
        assert!(asked[0].contains(&credentials), "{asked:?}");
    }
}

#[tokio::test]
async fn invalid_certificate_is_refused_behind_proxy() {
    let (secure, _) = tls_receiver(&Authority::new().issue("receiver.example"), &[], Asks::Nothing).await;
    let (port, _) = proxy(Does::LeadTo(secure)).await;
    let egress = egress_with(through(port, &[]), &Scripted::new(&[&["1.1.1.1"]]));
    assert_failed(&post(&egress, "https://receiver.example/").await, ErrorClass::Tls, "UnknownIssuer");
}

#[tokio::test]
async fn blocked_addresses_stay_blocked_behind_proxy() {
    let (port, asked) = proxy(Does::LeadTo(1)).await;
    let refused = async |url: &str, addresses: &[&'static str]| {
        let egress = egress_with(through(port, &[]), &Scripted::new(&[addresses]));
        assert_failed(&post(&egress, url).await, ErrorClass::Forbidden, "`egress.allow`");
    };
    for host in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "0x7f.1", "2130706433"] {
        refused(&format!("https://{host}/"), &["1.1.1.1"]).await;
    }
    refused("https://inside.example/", &["10.0.0.1"]).await;
    // The proxy might choose either address.
    refused("https://both.example/", &["1.1.1.1", "10.0.0.1"]).await;
    assert_eq!(asked.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn bypassed_hosts_are_still_guarded() {
    let url = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let receiver: u16 = url.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    let (port, asked) = proxy(Does::LeadTo(1)).await;
    let bypass = ["127.0.0.0/8", ".internal.example"];
    let allow = vec!["127.0.0.1/32".parse().unwrap()];
    let egress =
        egress_with(Options { allow, ..through(port, &bypass) }, &Scripted::new(&[&["127.0.0.1"], &["10.0.0.1"]]));
    for host in ["127.0.0.1", "a.internal.example"] {
        let exchange = exchange(&egress, &format!("http://{host}:{receiver}/")).await;
        assert!(exchange.outcome.is_success(), "{exchange:?}");
        assert!(!exchange.connection.unwrap().proxied);
    }
    let outcome = post(&egress, &format!("http://b.internal.example:{receiver}/")).await;
    assert_failed(&outcome, ErrorClass::Forbidden, "a private address");
    assert_eq!(asked.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn proxy_failures_are_attributed_to_the_proxy() {
    for (said, word) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", "in `egress.proxy` (407)"),
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nno!!", "does not allow this endpoint (403)"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "could not reach the endpoint (502)"),
        ("HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\n\r\n", "refused the tunnel to the endpoint (302)"),
        ("HTTP/1.1 200 OK\r\n\r\nhello", "sent data before the request"),
        ("SSH-2.0-x\r\n\r\n", "was lost"),
        ("", "was lost"),
    ] {
        let (port, _) = proxy(Does::Say(said)).await;
        let egress = egress_with(through(port, &[]), &Scripted::new(&[&[]]));
        let exchange = exchange(&egress, "https://receiver.example/").await;
        assert_failed(&exchange.outcome, ErrorClass::Proxy, word);
        assert!(exchange.connection.is_none() && !format!("{exchange:?}").contains("hush"), "{exchange:?}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let egress = egress_with(through(nobody, &[]), &Scripted::new(&[&[]]));
    assert_failed(&post(&egress, "https://receiver.example/").await, ErrorClass::Proxy, "cannot be reached");
}

#[tokio::test]
async fn silent_proxy_times_out() {
    let port = receiver(|mut stream| async move {
        let _ = stream.read_buf(&mut Vec::new()).await;
        std::future::pending::<()>().await;
    })
    .await;
    let options = Options { connect_ms_max: 300, ..through(port, &[]) };
    let egress = egress_with(options, &Scripted::new(&[&[]]));
    assert_failed(&post(&egress, "https://receiver.example/").await, ErrorClass::Timeout, "no connection");
}

/// A resolver that never answers, as behind some firewalls.
#[derive(Debug)]
struct Silent;

impl Resolve for Silent {
    fn resolve(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        std::future::pending().boxed()
    }
}

#[tokio::test]
async fn unresponsive_resolver_does_not_block_proxy() {
    let url = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let (port, asked) =
        proxy(Does::LeadTo(url.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap())).await;
    let egress = Egress::with_resolver(through(port, &[]), Clock::system(), Vec::new(), Arc::new(Silent)).unwrap();
    assert!(post(&egress, "http://receiver.example/").await.is_success());
    assert_eq!(asked.lock().unwrap().len(), 1);
}
