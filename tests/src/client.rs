//! An HTTP client that exposes every detail of an answer.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::client::WantsClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder};
use serde_json::Value;

/// Timeout of a request; an upload includes the compilation of a filter.
const EXCHANGE: Duration = Duration::from_secs(120);

/// The address of a host, which changes when it is restarted.
#[derive(Debug, Clone, Default)]
pub struct Base(Arc<RwLock<String>>);

impl Base {
    /// The current address.
    pub fn get(&self) -> String {
        self.0.read().expect("no thread panics while holding it").clone()
    }

    /// Sets the address.
    pub fn set(&self, base: &str) {
        base.clone_into(&mut self.0.write().expect("no thread panics while holding it"));
    }
}

/// A client of one host, with or without a key.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: Base,
    key: Option<String>,
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    asked: String,
}

impl Client {
    /// A client for the host at `base` that trusts only the given certificates.
    pub fn new(base: Base, trusted: &[CertificateDer<'static>]) -> Self {
        Self::with_tls(base, trusted, |tls| tls.with_no_client_auth())
    }

    /// A client that also presents a certificate if the server requests one (mTLS).
    pub fn certified(
        base: Base,
        trusted: &[CertificateDer<'static>],
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Self {
        Self::with_tls(base, trusted, |tls| {
            tls.with_client_auth_cert(vec![certificate], key).expect("they belong together")
        })
    }

    fn with_tls(
        base: Base,
        trusted: &[CertificateDer<'static>],
        finish: impl FnOnce(ConfigBuilder<ClientConfig, WantsClientCert>) -> ClientConfig,
    ) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in trusted {
            roots.add(certificate.clone()).expect("a certificate that can be a root");
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider's own versions")
            .with_root_certificates(roots);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(finish(tls)).https_or_http().enable_http1().build();
        // Connections are not reused: the host may have been killed since the last request.
        let pool = Pool::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { pool, base, key: None }
    }

    /// A copy of the client that sends this key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// A copy of the client without a key.
    pub fn without_key(&self) -> Self {
        Self { key: None, ..self.clone() }
    }

    /// Its key.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Sends a request and returns the answer, whatever its status. An error message if there is no answer.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let asked = format!("{method} {path}");
        let request = self.request(method, path, headers, body.into()).map_err(|error| format!("{asked}: {error}"))?;
        let exchange = async {
            let response = self.pool.request(request).await.map_err(|error| format!("{asked}: {error:?}"))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| format!("{asked}: {error:?}"))?.to_bytes();
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, asked: asked.clone() })
        };
        tokio::time::timeout(EXCHANGE, exchange).await.unwrap_or_else(|_| Err(format!("{asked}: no answer in time")))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> http::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base.get()));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body))
    }

    /// Sends a request that must be answered, with any status.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.try_send(method, path, headers, body).await.expect("the host answers")
    }

    /// Sends a `GET` and returns the answer as a stream.
    pub async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Response<UnsyncBoxBody<Bytes, String>> {
        let request = self.request(Method::GET, path, headers, Bytes::new()).expect("a request");
        let response = self.pool.request(request).await.expect("the host answers");
        response.map(|body| body.map_err(|error| error.to_string()).boxed_unsync())
    }

    /// Sends a `GET` for a stream, and returns the head and the first part of the body.
    pub async fn begin(&self, path: &str) -> Answer {
        let (head, mut body) = self.open(path, &[]).await.into_parts();
        let first = body.frame().await.and_then(Result::ok).and_then(|frame| frame.into_data().ok());
        let (body, asked) = (first.unwrap_or_default(), format!("GET {path}"));
        Answer { status: head.status.as_u16(), headers: head.headers, body, asked }
    }

    /// Sends a `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    /// Sends a `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[JSON], body.to_string()).await
    }

    /// Sends a `PUT` with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, &[JSON], body.to_string()).await
    }

    /// Sends a `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], "").await
    }
}

/// The header of a JSON body.
pub const JSON: (&str, &str) = ("content-type", "application/json");

impl Answer {
    /// Returns this answer if it has the status.
    ///
    /// # Panics
    /// If it has another status; the message contains request and answer.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.asked, self.text());
        self
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: {} is not JSON: {error}", self.asked, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Describes the deviations of this answer from problem details (RFC 9457) with that status and code. `None` if
    /// there are none.
    pub fn not_the_problem(&self, status: u16, code: &str) -> Option<String> {
        let said = format!("{} {}", self.status, self.text());
        if self.status != status {
            return Some(format!("expected status {status}: {said}"));
        }
        if self.header("content-type") != Some("application/problem+json") {
            return Some(format!("content type {:?}: {said}", self.header("content-type")));
        }
        let Ok(body) = serde_json::from_slice::<Value>(&self.body) else { return Some(format!("not JSON: {said}")) };
        if body["code"] != code {
            return Some(format!("expected code {code}: {said}"));
        }
        if body["status"] != status {
            return Some(format!("the body has another status: {said}"));
        }
        for member in ["type", "title", "detail"] {
            if body[member].as_str().is_none_or(str::is_empty) {
                return Some(format!("no `{member}`: {said}"));
            }
        }
        None
    }
}
