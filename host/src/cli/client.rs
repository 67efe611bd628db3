//! A small HTTP client for the commands and the demo, which use a host's public API. Deliveries use `egress` instead.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use setgate_egress::operator_tls_config;

/// Timeout (ms) of one request.
const EXCHANGE_MS_MAX: u64 = 120_000;
/// Maximum bytes of a response, equal to a host's default memory for bodies, which includes components and tables.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Characters shown in an error of a response that is not from a Setgate host.
const FOREIGN_CHARS_MAX: usize = 200;

/// A client of one host over HTTP or HTTPS.
#[derive(Clone)]
pub struct Client {
    pool: Pool<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    key: Option<String>,
}

/// A complete response.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Its media type; empty if it has none.
    pub content_type: String,
    /// The complete body.
    pub body: Bytes,
}

impl Client {
    /// For the host at `base`, such as `http://127.0.0.1:8080`, with an optional key. Trusts the system's certificate
    /// authorities.
    pub fn new(base: &str, key: Option<String>) -> anyhow::Result<Self> {
        Self::trusting(base, key, None)
    }

    /// As [`Client::new`], and also trusts the certificate authorities in a PEM file.
    pub fn trusting(base: &str, key: Option<String>, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let ca_files: Vec<_> = ca_file.map(Path::to_owned).into_iter().collect();
        let mut tls = operator_tls_config(&ca_files).context("--ca-file")?;
        // The connector sets it.
        tls.alpn_protocols.clear();
        let connector =
            hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let pool = Pool::builder(TokioExecutor::new()).build(connector);
        Ok(Self { pool, base: base.trim_end_matches('/').to_owned(), key })
    }

    /// The URL of a path on this host.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Sends a request and returns the response, whatever its status.
    ///
    /// # Errors
    /// If there is no response, with method and URL.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let at = format!("{method} {}", self.url(path));
        let exchange = self.exchange(method, path, headers, body.into());
        match tokio::time::timeout(Duration::from_millis(EXCHANGE_MS_MAX), exchange).await {
            Ok(answer) => answer.with_context(|| at),
            Err(_) => Err(anyhow!("no response within {} s", EXCHANGE_MS_MAX / 1_000).context(at)),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(self.url(path));
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.pool.request(request.body(Full::new(body))?).await.map_err(explained)?;
        let status = response.status();
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow!("the response is incomplete: {error}"))?.to_bytes();
        Ok(Answer { status, content_type, body })
    }

    /// Sends a request that must succeed.
    ///
    /// # Errors
    /// If there is no response, or its status is not 2xx: with method, URL and the host's problem.
    pub async fn succeed(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Bytes> {
        let answer = self.send(method.clone(), path, headers, body).await?;
        match answer.status.is_success() {
            true => Ok(answer.body),
            false => Err(anyhow!("{method} {}: {}", self.url(path), answer.in_words())),
        }
    }

    /// Sends a JSON request that must succeed.
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> anyhow::Result<serde_json::Value> {
        let text = body.map(ToString::to_string).unwrap_or_default();
        let headers: &[_] = if body.is_some() { &[("content-type", "application/json")] } else { &[] };
        let answer = self.succeed(method.clone(), path, headers, text).await?;
        self.read(&method, path, &answer)
    }

    /// Sends an upload that must succeed.
    pub async fn upload(&self, path: &str, media_type: &str, body: Bytes) -> anyhow::Result<serde_json::Value> {
        let answer = self.succeed(Method::PUT, path, &[("content-type", media_type)], body).await?;
        self.read(&Method::PUT, path, &answer)
    }

    fn read(&self, method: &Method, path: &str, body: &Bytes) -> anyhow::Result<serde_json::Value> {
        if body.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_slice(body).with_context(|| {
            format!("{method} {}: the response is not JSON, so it is not from a Setgate host", self.url(path))
        })
    }
}

impl Answer {
    /// A readable summary: code and detail of a host's problem, or a note that the response is not from a Setgate host.
    pub fn in_words(&self) -> String {
        let problem: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let member = |name: &str| problem.as_ref().and_then(|problem| problem[name].as_str());
        if let (Some(code), Some(detail)) = (member("code"), member("detail")) {
            return format!("{} {code}: {detail}", self.status);
        }
        let text = String::from_utf8_lossy(&self.body);
        let begin: String = text.trim().chars().take(FOREIGN_CHARS_MAX).collect();
        if self.status.is_success() {
            return format!("{} {begin}", self.status);
        }
        let media = if self.content_type.is_empty() { "no media type" } else { &self.content_type };
        let begin = if begin.is_empty() { "is empty".to_owned() } else { format!("begins with: {begin}") };
        format!(
            "{} with {media}, which is not a response of a Setgate host: check the URL; the body {begin}",
            self.status
        )
    }
}

/// The error with its causes, and advice if there is any.
fn explained(error: hyper_util::client::legacy::Error) -> anyhow::Error {
    let advice = match tls_error(&error) {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            Some("the certificate authority of the host is not trusted: give its PEM file with --ca-file")
        }
        Some(rustls::Error::InvalidMessage(_)) => Some("the server does not use TLS: try http://, or another port"),
        _ if error.is_connect() => Some("cannot connect: check that the host is running at this address"),
        _ => None,
    };
    let error = anyhow::Error::new(error);
    match advice {
        Some(advice) => error.context(advice),
        None => error,
    }
}

/// Finds the TLS error in a chain of causes, as wrapped by connectors.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error contains its cause, which `source` does not return.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inside.map(|inside| inside as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, content_type: &str, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, content_type: content_type.to_owned(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[test]
    fn a_problem_is_shown_by_code_and_detail_and_another_answer_as_foreign() {
        let problem = r#"{"type":"x","title":"Not Found","status":404,"code":"not_found","detail":"no filter `f`"}"#;
        let said = answer(404, "application/problem+json", problem).in_words();
        assert_eq!(said, "404 Not Found not_found: no filter `f`");
        let page = format!("<html><h1>nginx</h1>{}</html>", "x".repeat(10_000));
        let said = answer(404, "text/html", &page).in_words();
        assert!(said.contains("text/html") && said.contains("not a response of a Setgate host"), "{said}");
        assert!(said.contains("<h1>nginx") && said.len() < 500, "{said}");
        let said = answer(502, "", "").in_words();
        assert!(said.contains("502") && said.contains("no media type") && said.contains("is empty"), "{said}");
    }
}
