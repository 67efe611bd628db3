//! An HTTP proxy of a locked-down site: only `CONNECT`, with a password.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::prelude::{BASE64_STANDARD, Engine};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A proxy; stops on drop.
pub struct Proxy {
    /// Its address.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Requires `user:password`, and connects only to these names; others are answered 502.
    pub async fn start(credentials: &str, ways: &[(&str, SocketAddr)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port to listen on");
        let address = listener.local_addr().expect("a bound address");
        let ways: BTreeMap<String, SocketAddr> = ways.iter().map(|(name, to)| ((*name).to_owned(), *to)).collect();
        let expected = format!("proxy-authorization: basic {}", BASE64_STANDARD.encode(credentials)).to_lowercase();
        let (ways, asked) = (Arc::new(ways), Arc::new(Mutex::new(Vec::new())));
        let book = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, expected.clone(), Arc::clone(&ways), Arc::clone(&book)));
            }
        });
        Self { address, asked, serving }
    }

    /// The requested destinations, such as `receiver.example:443`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    mut near: TcpStream,
    expected: String,
    ways: Arc<BTreeMap<String, SocketAddr>>,
    asked: Arc<Mutex<Vec<String>>>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if near.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    let known = head.lines().any(|line| line.to_lowercase() == expected);
    let way = ways.get(target.split(':').next()?).copied();
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(target);
    let refusal = match (known, way) {
        (true, Some(to)) => {
            let mut far = TcpStream::connect(to).await.ok()?;
            near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
            let _ = copy_bidirectional(&mut near, &mut far).await;
            return Some(());
        }
        (false, _) => "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\n",
        (true, None) => "HTTP/1.1 502 Bad Gateway\r\n",
    };
    near.write_all(format!("{refusal}content-length: 0\r\n\r\n").as_bytes()).await.ok()
}
