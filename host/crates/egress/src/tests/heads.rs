//! Response heads of non-conforming servers.

use super::bodies::{counted, incomplete};
use super::*;

/// The outcome for a response with this head, over a connection that is used twice.
async fn read(head: &str) -> Outcome {
    let (connections, seen) = counted();
    let answer = head.to_owned();
    let port = receiver(move |mut stream| {
        seen.fetch_add(1, Ordering::SeqCst);
        let answer = answer.clone();
        async move {
            while request(&mut stream).await.is_some() {
                // In pieces, as on a slow network.
                for piece in answer.as_bytes().chunks(7 + answer.len() / 16) {
                    let _ = stream.write_all(piece).await;
                    tokio::task::yield_now().await;
                }
            }
        }
    })
    .await;
    let (egress, url) = (egress(open()), format!("http://127.0.0.1:{port}/"));
    let first = exchange(&egress, &url).await.outcome;
    put_back().await;
    let second = exchange(&egress, &url).await.outcome;
    assert_eq!(first, second, "{head:?}");
    if matches!(&first, Outcome::Answered { status: 200..=299, .. }) {
        assert_eq!(connections.load(Ordering::SeqCst), 1, "the connection goes on: {head:?}");
    }
    first
}

fn field<'a>(outcome: &'a Outcome, name: &str) -> Option<&'a str> {
    let Outcome::Answered { headers, .. } = outcome else { panic!("{outcome:?}") };
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn accepts_heads_that_curl_and_node_accept() {
    for (head, name, expected) in [
        ("HTTP/1.1 200 OK\r\nX-A: one\r\n two\r\n\tthree\r\ncontent-length: 0\r\n\r\n", "x-a", Some("one two three")),
        ("HTTP/1.1 200 OK\r\nX-A : one\r\nContent-Length\t: 0\r\n\r\n", "x-a", Some("one")),
        ("HTTP/1.1 200 O\x01K\x1b\r\nX-A: one\r\ncontent-length: 0\r\n\r\n", "x-a", Some("one")),
        ("HTTP/1.1 200 OK\r\nX-A: o\x07n\0e\r\ncontent-length: 0\r\n\r\n", "x-a", Some("o n e")),
        ("HTTP/1.1 200\r\nX-A: one\r\ncontent-length: 0\r\n\r\n", "x-a", Some("one")),
        ("HTTP/1.1  200  OK\r\nX-A: one\r\ncontent-length: 0\r\n\r\n", "x-a", Some("one")),
        ("http/1.1 200 ok\r\nX-A: one\r\ncontent-length: 0\r\n\r\n", "x-a", Some("one")),
        ("\r\n\r\nHTTP/1.1 200 OK\r\nX-A: one\r\ncontent-length: 0\r\n\r\n", "x-a", Some("one")),
        ("HTTP/1.1 200 OK\nX-A: one\ncontent-length: 0\n\n", "x-a", Some("one")),
        ("HTTP/1.1 200 OK\r\n X-A: one\r\ncontent-length: 0\r\n\r\n", "x-a", Some("one")),
        ("HTTP/1.1 200 OK\r\nno colon here\r\nX-A: one\r\ncontent-length: 0\r\n\r\n", "x-a", Some("one")),
        ("HTTP/1.1 200 OK\r\n: no name\r\nX-A: one\r\ncontent-length: 0\r\n\r\n", "x-a", Some("one")),
        (
            "HTTP/1.1 200 OK\r\nX A: bad\r\nX(A): bad\r\n bad\r\nX-A: one\r\ncontent-length: 0\r\n\r\n",
            "x-a",
            Some("one"),
        ),
        ("HTTP/1.1 200 OK\r\nX-A:\r\ncontent-length: 0\r\n\r\n", "x-a", Some("")),
        ("HTTP/1.1 200 OK\r\nX-A: é\r\ncontent-length: 0\r\n\r\n", "x-a", Some("é")),
        ("HTTP/1.1 200 OK\r\nX-A: one\r\ncontent-length: 0, 0\r\ncontent-length: 0\r\n\r\n", "x-a", Some("one")),
        ("HTTP/1.1 200 OK\r\nX-A: one\r\n \r\ncontent-length: 0\r\n\r\n", "x-a", Some("one")),
        (
            "HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 X\r\nX-A: one\r\n\r\n",
            "x-a",
            Some("one"),
        ),
    ] {
        let outcome = read(head).await;
        assert!(outcome.is_success(), "{head:?}: {outcome:?}");
        assert_eq!(field(&outcome, name), expected, "{head:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn field_count_is_bounded_by_head_bytes_only() {
    for count in [101, 500, 1_000, 4_500] {
        let fields: String = (0..count).map(|nth| format!("{nth}:\r\n")).collect();
        let head = format!("HTTP/1.1 503 X\r\n{fields}Retry-After: 9\r\nContent-Length: 0\r\n\r\n");
        match read(&head).await {
            Outcome::Answered { status: 503, retry_after_s: Some(9), headers, .. } => assert_eq!(headers.len(), 32),
            other => panic!("{count}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn retry_after_is_read_from_malformed_head() {
    let head = "HTTP/1.1 429 \x02\r\nRetry-After :\r\n 30\x07\r\nbad\x01name: x\r\ncontent-length: 0\r\n\r\n";
    match read(head).await {
        Outcome::Answered { status: 429, retry_after_s, .. } => assert_eq!(retry_after_s, Some(30)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn unusable_head_error_names_field_without_value() {
    let long = format!("HTTP/1.1 200 OK\r\nx-long: hush{}\r\n\r\n", "x".repeat(40_000));
    for (head, words) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: hush\r\n\r\n", "`content-length` of the response is not a number"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "`content-length` of the response contradict",
        ),
        (&long, "in the field `x-long`"),
        ("HTTP/2 200\r\n\r\n", "status line"),
        ("HTTP/1.1 hush\r\n\r\n", "status line"),
        ("220 mail.example ESMTP\r\n", "does not begin like HTTP/1"),
    ] {
        let outcome = read(head).await;
        assert_failed(&outcome, ErrorClass::Broken, words);
        assert!(!format!("{outcome:?}").contains("hush"), "{outcome:?}");
    }
}

#[tokio::test]
async fn status_101_is_no_success() {
    let outcome = read("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n").await;
    assert_eq!(incomplete(&outcome).0, 101);
    assert!(!outcome.is_success());
}

#[tokio::test]
async fn second_head_on_a_connection_is_normalised() {
    let head =
        "HTTP/1.1 200 O\x01K\r\nX-A : o\x01e\r\ncontent-length: 26\r\n\r\nHTTP/1.1 500\x01\r\n\r\nbody\x01\r\n\r\n";
    let outcome = read(head).await;
    assert_eq!(field(&outcome, "x-a"), Some("o e"));
    let Outcome::Answered { body_head, .. } = outcome else { unreachable!() };
    // The head's normalisation would have produced a space. The record uses U+FFFD, as for all text of a receiver.
    assert_eq!(body_head, "HTTP/1.1 500\u{fffd}\r\n\r\nbody\u{fffd}\r\n\r\n", "a body is passed through unchanged");
}
