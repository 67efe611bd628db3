//! Checks of resolved addresses.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;

/// Returns one answer after the other, then repeats the last one. Counts its calls.
#[derive(Debug)]
pub(super) struct Scripted {
    answers: Mutex<VecDeque<Vec<&'static str>>>,
    asked: AtomicUsize,
}

impl Scripted {
    /// An answer without addresses stands for a name that does not exist.
    pub(super) fn new(answers: &[&[&'static str]]) -> Arc<Self> {
        let answers = answers.iter().map(|addresses| addresses.to_vec()).collect();
        Arc::new(Self { answers: Mutex::new(answers), asked: AtomicUsize::new(0) })
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Resolve for Scripted {
    fn resolve(&self, _: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let now = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
        let addresses = now.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect::<Vec<_>>();
        let answer = if now.is_empty() { Err(io::Error::other("no such name")) } else { Ok(addresses) };
        async move { answer }.boxed()
    }
}

pub(super) fn egress_with(options: Options, resolver: &Arc<Scripted>) -> Egress {
    let resolver: Arc<dyn Resolve> = Arc::<Scripted>::clone(resolver);
    Egress::with_resolver(options, Clock::system(), Vec::new(), resolver).unwrap()
}

/// Options that allow 127.0.0.1 and no other address of this machine.
fn one_open() -> Options {
    Options { allow: vec!["127.0.0.1/32".parse().unwrap()], ..open() }
}

/// A listener on another address of this machine at the same port, and the number of its connections.
async fn inside(port: u16) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let hits = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&hits);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    });
    hits
}

#[tokio::test]
async fn dns_rebinding_is_blocked() {
    let port = receiver(|mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let hits = inside(port).await;
    let resolver = Scripted::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let (egress, url) = (egress_with(one_open(), &resolver), format!("http://rebinding.example:{port}/"));
    assert!(post(&egress, &url).await.is_success());
    assert_eq!(resolver.asked(), 1, "there is no second lookup between check and connect");
    for asked in 2..=3 {
        assert_failed(&post(&egress, &url).await, ErrorClass::Forbidden, "a loopback address");
        assert_eq!(resolver.asked(), asked);
    }
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn connects_only_to_permitted_addresses() {
    let url = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let port: u16 = url.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    let hits = inside(port).await;
    let resolver = Scripted::new(&[&["127.0.0.2", "10.0.0.1", "127.0.0.1"]]);
    let exchange = exchange(&egress_with(one_open(), &resolver), &format!("http://both.example:{port}/")).await;
    assert!(exchange.outcome.is_success(), "{exchange:?}");
    assert_eq!(exchange.connection.unwrap().peer, Some(format!("127.0.0.1:{port}")));
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn name_without_address_is_reported() {
    let resolver = Scripted::new(&[&[]]);
    let outcome = post(&egress_with(open(), &resolver), "http://nowhere.example/").await;
    assert_failed(&outcome, ErrorClass::Resolve, "no such name");
}
