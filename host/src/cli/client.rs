//! A small HTTP client for `emit`, `filter run --delivery` and `demo`, which speak to a host as anyone would. Deliveries go through `egress`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Milliseconds for one exchange.
const EXCHANGE_MS_MAX: u64 = 120_000;
/// Bytes of an answer: as many as a host holds of bodies, components and tables among them.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Speaks to one host over http or https (system certificates).
#[derive(Clone)]
pub struct Client {
    pool: Pool<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    key: Option<String>,
}

/// The system's certificates.
fn tls() -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    // A machine without any still speaks http.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Ok(rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// For the host at `base`, such as `http://127.0.0.1:8080`, with a key where one is needed.
    pub fn new(base: &str, key: Option<String>) -> anyhow::Result<Self> {
        let connector =
            hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls()?).https_or_http().enable_http1().build();
        let pool = Pool::builder(TokioExecutor::new()).build(connector);
        Ok(Self { pool, base: base.trim_end_matches('/').to_owned(), key })
    }

    /// One exchange, whatever its status.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        let exchange = async {
            let response = self.pool.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            Ok(Answer { status, body })
        };
        tokio::time::timeout(Duration::from_millis(EXCHANGE_MS_MAX), exchange).await.context("no answer in time")?
    }

    /// A JSON exchange that has to succeed.
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> anyhow::Result<serde_json::Value> {
        let text = body.map(ToString::to_string).unwrap_or_default();
        let headers: &[_] = if body.is_some() { &[("content-type", "application/json")] } else { &[] };
        let answer = self.send(method.clone(), path, headers, text).await?;
        self.success(&method, path, answer)
    }

    /// An upload that has to succeed.
    pub async fn upload(&self, path: &str, media_type: &str, body: Bytes) -> anyhow::Result<serde_json::Value> {
        let answer = self.send(Method::PUT, path, &[("content-type", media_type)], body).await?;
        self.success(&Method::PUT, path, answer)
    }

    fn success(&self, method: &Method, path: &str, answer: Answer) -> anyhow::Result<serde_json::Value> {
        if !answer.status.is_success() {
            bail!("{method} {}{path}: {} {}", self.base, answer.status, String::from_utf8_lossy(&answer.body));
        }
        if answer.body.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_slice(&answer.body).context("the answer is not JSON")
    }
}
