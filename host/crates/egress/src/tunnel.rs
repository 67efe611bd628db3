//! Opens a tunnel through the operator's proxy with `CONNECT` (RFC 9110 section 9.3.6). Afterwards the connection leads
//! to the receiver.

use std::future::Future;
use std::pin::pin;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use setgate_domain::attempt::ErrorClass;
use setgate_domain::secret::Secret;
use tokio::net::TcpStream;

use super::failure::Failure;

/// Limit for the head of the proxy's response in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Limit for the fields of that head.
const FIELDS_MAX: usize = 512;

/// Requests a tunnel to `host` (IPv6 addresses in brackets) and `port` from the proxy that `stream` is connected to.
/// There is no timeout here; the caller sets one.
pub(super) async fn open(
    stream: TcpStream,
    host: &str,
    port: u16,
    credentials: Option<&Secret>,
) -> Result<TcpStream, Failure> {
    let request = connect_request(host, port, credentials)?;
    let mut client = http1::Builder::new();
    client
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(FIELDS_MAX)
        // Tolerant like the client for receivers, because only the status matters.
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let requesting = async move {
        let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
        match answer.status() {
            status if status.is_success() => hyper::upgrade::on(answer).await.map_err(|error| broken(&error)),
            status => Err(refused(status)),
        }
    };
    let upgraded = poll_alongside(requesting, connection.with_upgrades()).await?;
    let parts =
        upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| proxy_failure("it did not release the connection"))?;
    // With or without TLS, the client must send the first bytes.
    if parts.read_buf.is_empty() {
        Ok(parts.io.into_inner())
    } else {
        Err(proxy_failure("it sent data before the request"))
    }
}

/// Awaits `first` and polls `second` meanwhile. The end of `second` has no effect.
async fn poll_alongside<T>(first: impl Future<Output = T>, second: impl Future) -> T {
    match select(pin!(first), pin!(second)).await {
        Either::Left((done, _)) => done,
        Either::Right((_, first)) => first.await,
    }
}

fn connect_request(host: &str, port: u16, credentials: Option<&Secret>) -> Result<Request<Empty<Bytes>>, Failure> {
    let invalid = || Failure::new(ErrorClass::Unsendable, "the endpoint's host cannot be part of a request");
    let authority = format!("{host}:{port}");
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority.parse::<Uri>().map_err(|_| invalid())?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|_| invalid())?);
    headers.insert(USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
    if let Some(credentials) = credentials {
        // RFC 7617.
        let value = format!("Basic {}", BASE64_STANDARD.encode(credentials.expose()));
        let mut value = HeaderValue::from_str(&value).expect("base64 is a valid header value");
        value.set_sensitive(true);
        headers.insert(PROXY_AUTHORIZATION, value);
    }
    Ok(request)
}

fn refused(status: StatusCode) -> Failure {
    let code = status.as_u16();
    proxy_failure(&match code {
        407 => "it requires a user and a password, or others than those in `egress.proxy` (407)".to_owned(),
        403 => "it does not allow this endpoint (403)".to_owned(),
        500..=599 => format!("it could not reach the endpoint ({code})"),
        _ => format!("it refused the tunnel to the endpoint ({code})"),
    })
}

fn broken(error: &hyper::Error) -> Failure {
    proxy_failure(&format!("the connection to it was lost: {error}"))
}

/// A failure caused by the proxy.
pub(super) fn proxy_failure(detail: &str) -> Failure {
    Failure::new(ErrorClass::Proxy, &format!("the operator's proxy: {detail}"))
}
