//! A request whose body arrives after something else has happened.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::host::Host;

/// A POST whose head was accepted and whose body has not been sent.
pub struct LateBody {
    stream: TcpStream,
    body: Vec<u8>,
}

impl LateBody {
    /// Sends the head, and waits until the host requests the body.
    pub async fn begin(host: &Host, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let address = host.base().trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&address).await.expect("the host listens");
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\nconnection: close\r\nexpect: 100-continue\r\n",
            body.len()
        );
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await.expect("the head is sent");
        let mut go_on = [0; 25];
        stream.read_exact(&mut go_on).await.expect("an answer to the head");
        assert!(go_on.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&go_on));
        Self { stream, body }
    }

    /// Sends the body. Returns the whole answer as text.
    pub async fn end(mut self) -> String {
        self.stream.write_all(&self.body).await.expect("the body is sent");
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }
}
