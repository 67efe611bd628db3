//! The client for the trace collector (OTLP/HTTP, binary protobuf). The collector is configured by the operator, so
//! egress's guard and proxy, which apply to receivers chosen by tenants, are not used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message as _;
use rustls::ClientConfig;
use tokio::time::timeout;
use url::Url;

use super::Settings;
use super::otlp::Exported;

/// Timeout of a request to the collector, in milliseconds.
const SEND_MS_MAX: u64 = 10_000;
/// Limit for a response in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Limit for the collector's error message in the log, in characters.
const WORDS_CHARS_MAX: usize = 200;
/// Time after which an idle connection is closed.
const IDLE: Duration = Duration::from_secs(30);

/// Why the settings of the collector are invalid. Contains no values.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read `traces.headers_file` {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A line of the file is not a header.
    #[error("line {line} of `traces.headers_file` {path} is no `name: value`")]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, starting at 1.
        line: usize,
    },
    /// A header cannot be sent.
    #[error(
        "the header `{0}` cannot be sent to the collector: a name has letters, digits and `-`, a value no control characters"
    )]
    Header(String),
    /// The URL cannot be used in a request.
    #[error("`traces.endpoint` cannot stand in a request")]
    Endpoint,
}

/// The client for the collector.
pub(super) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    send_max: Duration,
    /// Scheme, host and port, for the log.
    origin: String,
}

/// Why spans were not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Temporary. `after` is the delay that the collector asked for.
    ForNow { why: String, after: Option<Duration> },
    /// Permanent: the same spans would be rejected again.
    ForGood { why: String },
}

impl Collector {
    pub(super) fn new(endpoint: &Url, settings: &Settings, tls: ClientConfig) -> Result<Self, Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(HttpsConnector::from((tcp, tls)));
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            insert(&mut headers, name, value.expose())?;
        }
        if let Some(path) = &settings.headers_file {
            read_headers(&mut headers, path)?;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("Setgate/", env!("CARGO_PKG_VERSION"))));
        Ok(Self {
            client,
            uri: traces_uri(endpoint)?,
            headers,
            send_max: Duration::from_millis(SEND_MS_MAX),
            origin: endpoint.origin().ascii_serialization(),
        })
    }

    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Sends one request with spans. `Some` if the collector accepted the request but rejected some of the spans: their
    /// number and the reason.
    pub(super) async fn send(&self, body: Bytes) -> Result<Option<(u64, String)>, Refused> {
        match timeout(self.send_max, self.exchange(body)).await {
            Ok(answer) => answer,
            Err(_) => {
                let why = format!("no answer within {} ms", self.send_max.as_millis());
                Err(Refused::ForNow { why, after: None })
            }
        }
    }

    async fn exchange(&self, body: Bytes) -> Result<Option<(u64, String)>, Refused> {
        let broken = |error: &(dyn std::error::Error + 'static)| {
            let why = std::iter::successors(Some(error), |error| error.source());
            let why = why.map(ToString::to_string).collect::<Vec<_>>().join(": ");
            Refused::ForNow { why, after: None }
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let (head, body) = self.client.request(request).await.map_err(|error| broken(&error))?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| broken(&*error))?.to_bytes();
        if head.status.is_success() {
            // A 200 response with any other body counts as full success.
            let part = Exported::decode(body).unwrap_or_default().partial_success.unwrap_or_default();
            let rejected = u64::try_from(part.rejected_spans).unwrap_or(0);
            return Ok((rejected > 0).then(|| (rejected, words(&part.error_message))));
        }
        Err(refused(head.status, &head.headers))
    }
}

/// Classifies a response without success status (OTLP, "OTLP/HTTP Response").
fn refused(status: StatusCode, headers: &HeaderMap) -> Refused {
    let why = format!("it answered {status}");
    match status.as_u16() {
        429 | 502..=504 => {
            let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            Refused::ForNow { why, after: seconds.map(Duration::from_secs) }
        }
        _ => Refused::ForGood { why },
    }
}

/// The URL for traces. If the endpoint has no path, `/v1/traces` is used.
fn traces_uri(endpoint: &Url) -> Result<Uri, Error> {
    let mut url = endpoint.clone();
    if matches!(url.path(), "" | "/") {
        url.set_path("/v1/traces");
    }
    url.set_fragment(None);
    url.as_str().parse().map_err(|_| Error::Endpoint)
}

fn read_headers(headers: &mut HeaderMap, path: &Path) -> Result<(), Error> {
    let read = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    let text = zeroize::Zeroizing::new(read);
    for (at, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let broken = || Error::Line { path: path.to_owned(), line: at + 1 };
        let (name, value) = line.split_once(':').ok_or_else(broken)?;
        insert(headers, name.trim(), value.trim())?;
    }
    Ok(())
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Error> {
    // Names of environment variables cannot contain `-`. Refusing `_` here reports the mistake now instead of at the
    // collector.
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| !name.contains('_'));
    let (Some(known), Ok(mut value)) = (parsed, HeaderValue::from_str(value)) else {
        return Err(Error::Header(name.to_owned()));
    };
    value.set_sensitive(true);
    headers.insert(known, value);
    Ok(())
}

/// Sanitises an external message for one line of the log.
fn words(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(WORDS_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_without_a_path_takes_traces_at_the_usual_one() {
        for (given, expected) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://otel.example/", "https://otel.example/v1/traces"),
            ("https://otel.example/otlp/traces?x=1", "https://otel.example/otlp/traces?x=1"),
        ] {
            assert_eq!(traces_uri(&given.parse().unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn what_may_be_sent_again_is_told_from_what_may_not() {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("7"))]);
        for (status, again) in
            [(429, true), (502, true), (503, true), (504, true), (500, false), (400, false), (404, false), (302, false)]
        {
            let refused = refused(StatusCode::from_u16(status).unwrap(), &headers);
            let after = Some(Duration::from_secs(7));
            let expected = matches!(&refused, Refused::ForNow { after: told, .. } if *told == after);
            assert_eq!(expected, again, "{status}: {refused:?}");
        }
    }

    #[test]
    fn a_file_of_headers_is_read_and_what_is_wrong_is_named_without_its_value() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            let mut headers = HeaderMap::new();
            read_headers(&mut headers, file.path()).map(|()| headers).map_err(|error| error.to_string())
        };
        let headers = read("# the collector's\n\nAuthorization: Bearer a:b\r\nx-api-key:hush\n").unwrap();
        assert_eq!(
            (&headers["authorization"], &headers["x-api-key"]),
            (&"Bearer a:b".parse().unwrap(), &"hush".parse().unwrap())
        );
        assert!(!format!("{headers:?}").contains("hush"));
        for (text, named) in [("a: b\nhush\n", "line 2"), ("x_api_key: hush", "`x_api_key`"), ("a b: hush", "`a b`")] {
            let said = read(text).unwrap_err();
            assert!(said.contains(named) && !said.contains("hush"), "{said}");
        }
        let missing = read_headers(&mut HeaderMap::new(), Path::new("/nowhere/headers")).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/headers"));
    }
}
