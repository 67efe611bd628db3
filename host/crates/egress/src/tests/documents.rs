//! Documents that are fetched by `get`.

use http::StatusCode;

use super::*;

const LIMIT: usize = 64;

async fn get_within(egress: &Egress, url: &str, timeout: Duration) -> Result<Document, GetError> {
    let (tenant, url) = ("acme".parse().unwrap(), Destination::parse(url).unwrap());
    egress.get(GetRequest { tenant: &tenant, url: &url, accept: "application/json", bytes_max: LIMIT, timeout }).await
}

async fn get(egress: &Egress, url: &str) -> Result<Document, GetError> {
    get_within(egress, url, Duration::from_secs(60)).await
}

/// Answers each request on each connection with these bytes, then closes the connection if the answer says so. Returns
/// the URL.
async fn serving(answer: String) -> String {
    let answer: Arc<str> = answer.into();
    let port = receiver(move |mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            while head(&mut stream).await.is_some() && stream.write_all(answer.as_bytes()).await.is_ok() {
                if answer.contains("connection: close") {
                    return;
                }
            }
        }
    })
    .await;
    format!("http://127.0.0.1:{port}/jwks?a=b#part")
}

/// Reads the head of a request without a body.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
    String::from_utf8(read).ok()
}

#[tokio::test]
async fn document_has_status_headers_and_whole_body() {
    let egress = egress(open());
    let url = serving("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}".into()).await;
    for _ in 0..2 {
        let document = get(&egress, &url).await.unwrap();
        assert_eq!((document.status, &document.body[..]), (StatusCode::OK, &b"{}"[..]));
        assert_eq!(document.headers["content-type"], "application/json");
    }
    let chunked = "HTTP/1.1 404 X\r\ntransfer-encoding: chunked\r\n\r\n3\r\nbad\r\n2\r\n!!\r\n0\r\n\r\n";
    let document = get(&egress, &serving(chunked.into()).await).await.unwrap();
    assert_eq!((document.status, &document.body[..]), (StatusCode::NOT_FOUND, &b"bad!!"[..]));
}

#[tokio::test]
async fn request_is_a_get_without_a_body() {
    let (sender, mut requests) = mpsc::unbounded_channel();
    let port = receiver(move |mut stream| {
        let sender = sender.clone();
        async move {
            sender.send(head(&mut stream).await.unwrap()).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    get(&egress(open()), &format!("http://127.0.0.1:{port}/jwks?a=b#part")).await.unwrap();
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("GET /jwks?a=b HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\naccept: application/json\r\n"), "{request}");
    assert!(!request.contains("content-length") && !request.contains("content-type"), "{request}");
}

#[tokio::test]
async fn body_is_complete_and_within_its_limit_or_an_error() {
    let egress = egress(open());
    let close = "connection: close\r\n";
    let text = "x".repeat(LIMIT);
    let whole = get(&egress, &serving(format!("HTTP/1.1 200 OK\r\n{close}\r\n{text}")).await).await.unwrap();
    assert_eq!(whole.body.len(), LIMIT, "a body without a length ends with its connection");
    for (answer, part) in [
        (format!("HTTP/1.1 200 OK\r\n{close}\r\n{text}x"), "larger than 64 bytes"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n".to_owned(), "larger than 64 bytes"),
        (format!("HTTP/1.1 200 OK\r\n{close}content-length: 9\r\n\r\n{{}}"), ""),
    ] {
        let error = get(&egress, &serving(answer.clone()).await).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Broken, "{answer}: {error}");
        assert!(error.to_string().contains(part), "{answer}: {error}");
    }
}

#[tokio::test]
async fn redirects_are_documents_and_not_followed() {
    let elsewhere = serving("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".into()).await;
    let answer = format!("HTTP/1.1 302 X\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n");
    let document = get(&egress(open()), &serving(answer).await).await.unwrap();
    assert_eq!((document.status, document.body.len()), (StatusCode::FOUND, 0));
}

#[tokio::test]
async fn guard_and_timeouts_apply() {
    let url = serving("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()).await;
    let shut = egress(Options { allow_http: true, ..Options::default() });
    let error = get(&shut, &url).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Forbidden);
    assert!(error.to_string().contains("a loopback address"), "{error}");
    let port = receiver(|mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{").await;
        std::future::pending::<()>().await;
    })
    .await;
    let hanging = format!("http://127.0.0.1:{port}/");
    let error = get_within(&egress(open()), &hanging, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Timeout);
    assert!(error.to_string().contains("did not end within 300 ms"), "{error}");
    let silent = receiver(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let silent = format!("http://127.0.0.1:{silent}/");
    let error = get_within(&egress(open()), &silent, Duration::from_millis(300)).await.unwrap_err();
    assert!(error.to_string().contains("no response began within 300 ms"), "{error}");
}
