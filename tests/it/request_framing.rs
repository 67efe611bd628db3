//! Request framing. If a proxy in front and the host disagree about the end of a request, a second request can be smuggled
//! past the proxy inside the first one (RFC 9112 sections 6.3 and 11.2).

use std::time::Duration;

use setgate_tests::{Host, Seed, event};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The smuggled request. A second response shows that the host processed it.
const SMUGGLED: &str = "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";

/// Sends a request and reads until the host closes the connection. An error if it stays open.
async fn until_closed(address: &str, request: &[u8]) -> Result<String, String> {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        let mut piece = [0; 4096];
        // A read error is also the end: closing with unread bytes resets the connection.
        while let Ok(bytes @ 1..) = connection.read(&mut piece).await {
            answer.extend_from_slice(&piece[..bytes]);
        }
    };
    let closed = tokio::time::timeout(Duration::from_secs(30), reading).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    if closed.is_ok() { Ok(text) } else { Err(format!("the connection stays open after: {text}")) }
}

/// `None` if the host sends exactly one response, with that status.
async fn fault(address: &str, what: &str, request: &[u8], status: &str) -> Option<String> {
    let text = match until_closed(address, request).await {
        Ok(text) => text,
        Err(error) => return Some(format!("{what}: {error}")),
    };
    let answers = text.matches("HTTP/1.").count();
    let begins = text.get(9..).is_some_and(|rest| rest.starts_with(status));
    (answers != 1 || !begins).then(|| format!("{what}: {answers} answers, expected one {status}: {text}"))
}

#[tokio::test]
async fn requests_cannot_be_smuggled() {
    // Longer than the wait for the close, so that no idle timeout closes the connection.
    let host = Host::with().config("[listen]\nidle_ms_max = 300000\nhead_ms_max = 300000").start().await;
    let address = host.base().trim_start_matches("http://").to_owned();
    let acme = host.tenant("acme").await;
    acme.source("open", Seed::Open).await;
    let body = event::set("one");
    let (length, size) = (body.len(), format!("{:x}", body.len()));
    let chunked = format!("{size}\r\n{body}\r\n0\r\n\r\n");
    let request = |version: &str, fields: &str, body: &str| {
        let begin = format!("POST /ingest/acme/open HTTP/{version}\r\nhost: x\r\ncontent-type: application/json\r\n");
        format!("{begin}{fields}\r\n{body}{SMUGGLED}")
    };
    let in_chunks = |fields: &str| request("1.1", fields, &chunked);
    let in_length = |fields: &str| request("1.1", fields, &body);
    const TE: &str = "transfer-encoding: chunked\r\n";
    let mut cases: Vec<(String, String, &str)> = Vec::new();
    let mut case = |what: &str, request: String, status| cases.push((what.to_owned(), request, status));

    // Length and coding: the coding decides, and the connection is closed (RFC 9112 section 6.1).
    case("length before coding", in_chunks(&format!("content-length: {length}\r\n{TE}")), "202");
    case("length behind coding", in_chunks(&format!("{TE}content-length: 0\r\n")), "202");
    case("a bad length behind the coding", in_chunks(&format!("{TE}content-length: x\r\n")), "202");
    let kept = format!("connection: keep-alive\r\n{TE}content-length: {length}\r\n");
    case("length and coding, kept alive", in_chunks(&kept), "202");
    // Lengths.
    for bad in
        ["5\r\ncontent-length: 6", "x", "+5", "-1", "0x10", "5 5", "5, 5", "", "99999999999999999999999", "\u{b}5"]
    {
        case(&format!("length {bad:?}"), in_length(&format!("content-length: {bad}\r\n")), "400");
    }
    // Codings.
    for bad in [
        "xchunked",
        "chunked, identity",
        "identity",
        "",
        "chunked;q=1",
        "\"chunked\"",
        "chunked\r\ntransfer-encoding: x",
    ] {
        case(&format!("coding {bad:?}"), in_chunks(&format!("transfer-encoding: {bad}\r\n")), "400");
        let both = format!("content-length: {length}\r\ntransfer-encoding: {bad}\r\n");
        case(&format!("length and coding {bad:?}"), in_length(&both), "400");
    }
    for bad in ["gzip, chunked", "chunked\r\ntransfer-encoding: chunked"] {
        case(&format!("coding {bad:?}"), in_chunks(&format!("transfer-encoding: {bad}\r\n")), "501");
    }
    case("coding in HTTP/1.0", request("1.0", &format!("connection: keep-alive\r\n{TE}"), &chunked), "400");
    // Fields.
    for bad in [
        "transfer-encoding:\r\n chunked\r\n",
        "x: y\r\n transfer-encoding: chunked\r\n",
        "transfer-encoding : chunked\r\n",
        "transfer-encoding\t: chunked\r\n",
        "transfer-encoding: \u{b}chunked\r\n",
        "transfer-encoding: chunked\0\r\n",
        "x: y\rtransfer-encoding: chunked\r\n",
        " transfer-encoding: chunked\r\n",
        "transfer\u{e9}encoding: chunked\r\n",
    ] {
        case(&format!("field {bad:?}"), in_chunks(bad), "400");
        case(&format!("length and field {bad:?}"), in_length(&format!("content-length: {length}\r\n{bad}")), "400");
    }
    // Chunks.
    for bad in [
        format!("{size};x=1\n{body}\r\n0\r\n\r\n"),
        format!("0x{size}\r\n{body}\r\n0\r\n\r\n"),
        format!("+{size}\r\n{body}\r\n0\r\n\r\n"),
        format!("1000000000000000{size}\r\n{body}\r\n0\r\n\r\n"),
        format!("{size}\r\n{body}0\r\n\r\n"),
        format!("{size}\r\n{body}\n0\n\n"),
        format!("{size}\r{body}\r\n0\r\n\r\n"),
        format!("\r\n{body}\r\n0\r\n\r\n"),
    ] {
        case(&format!("chunks {:?}", bad.replace(&body, "BODY")), request("1.1", TE, &bad), "400");
    }

    let mut faults = Vec::new();
    for (what, request, status) in &cases {
        faults.extend(fault(&address, what, request.as_bytes(), status).await);
    }
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
    let stored = acme.get("/events").await["items"].as_array().unwrap().len();
    assert_eq!(stored, 1, "the four accepted requests have the same event, and no refused one is stored");
}

#[tokio::test]
async fn unread_body_is_not_a_request() {
    let host = Host::start().await;
    let address = host.base().trim_start_matches("http://").to_owned();
    // The host answers it with 405 if it processes it.
    let hidden = "PUT /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    let length = hidden.len();
    for (what, fields, body) in [
        ("by length", format!("content-length: {length}"), hidden.to_owned()),
        ("in chunks", "transfer-encoding: chunked".to_owned(), format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n")),
        ("announced", format!("expect: 100-continue\r\ncontent-length: {length}"), hidden.to_owned()),
    ] {
        for (path, status) in [("/healthz", "200"), ("/nowhere", "404")] {
            // Closes the connection if it is still open.
            let last = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{fields}\r\n\r\n{body}{last}");
            let text = until_closed(&address, request.as_bytes()).await.unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{what}, {path}: {text}");
            assert!(!text.contains("HTTP/1.1 405"), "{what}, {path}: {text}");
        }
    }
}
