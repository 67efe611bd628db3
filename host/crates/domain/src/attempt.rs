//! Delivery attempts: one HTTP exchange with a receiver each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{Digest, SigningKeyId};
use super::time::Timestamp;

/// Maximum length of a response body that [`Outcome::summary`] quotes, in bytes.
const SUMMARY_BODY_BYTES_MAX: usize = 200;

/// One delivery attempt, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// Number of the attempt, starting at 1.
    pub number: u32,
    /// Start time.
    pub at: Timestamp,
    /// Time from the start to the end of the response or to the error, in microseconds.
    pub latency_us: u64,
    /// Result of the attempt.
    pub outcome: Outcome,
    /// IDs of the keys that signed it.
    #[serde(default)]
    pub signed_with: Vec<SigningKeyId>,
    /// The signed SET in its body, for the format `signed_set`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<SentSet>,
    /// The request that was sent, or would have been sent if the connection failed. Absent if no request could be
    /// built, and in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<SentRequest>,
    /// The connection that was used. Absent if none was established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
}

/// The signed SET in the body of an attempt. It is the same in all attempts of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SentSet {
    /// `kid` of the issuer key that signed it.
    pub kid: String,
    /// Its `jti`.
    pub jti: String,
}

/// The recorded part of a request. The body itself can be rebuilt from the delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Sent")]
pub struct SentRequest {
    /// The endpoint's URL at that time: scheme, host, port and the last four characters of path and query. The rest of
    /// path and query is secret.
    pub url: String,
    /// Header names in lower case, each once, with values. Values of the headers configured for the endpoint are shown
    /// as `***`.
    pub headers: Vec<(String, String)>,
    /// SHA-256 of the body.
    pub body_digest: Digest,
    /// Length of the body in bytes.
    pub body_bytes: u64,
}

/// The connection of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connection {
    /// Protocol version.
    pub http: HttpVersion,
    /// Remote address and port. Absent if the connection went through the operator's proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Whether the connection went through the operator's proxy.
    #[serde(default)]
    pub proxied: bool,
}

/// HTTP version, named by its ALPN protocol ID (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HttpVersion {
    /// HTTP/1.0 or HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http1,
    /// HTTP/2.
    #[serde(rename = "h2")]
    Http2,
}

/// Result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The receiver responded. Only a 2xx status is a success.
    Answered {
        /// HTTP status code.
        status: u16,
        /// Start of the response body as text, limited by `response_bytes_kept`.
        body_head: String,
        /// `Retry-After`, in seconds from the response. Absent if the receiver sent none that could be parsed.
        retry_after_s: Option<u32>,
        /// Response headers in their order, with names in lower case, limited in number and
        /// size. Cookie values are shown as `***`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
        /// The receiver's request in the header `webhook-delivery`.
        #[serde(rename = "wish", default, skip_serializing_if = "Option::is_none")]
        directive: Option<DeliveryDirective>,
        /// Why the body is incomplete: the connection broke, or the body did not end in time. The status still counts.
        /// Absent if the body was read to its end or up to the limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body_incomplete: Option<String>,
    },
    /// The receiver fetched the SET and acknowledged it (RFC 8936 section 2.4).
    Acknowledged,
    /// The receiver fetched the SET and reported an error (RFC 8936 section 2.6).
    Rejected {
        /// The error code.
        err: String,
        /// The receiver's description, limited in length.
        description: String,
    },
    /// There was no response.
    Failed {
        /// Kind of the error.
        class: ErrorClass,
        /// Error message, without secrets.
        detail: String,
    },
}

impl Outcome {
    /// A response with this status and no other data.
    pub fn status(status: u16) -> Self {
        Self::Answered {
            status,
            body_head: String::new(),
            retry_after_s: None,
            headers: Vec::new(),
            directive: None,
            body_incomplete: None,
        }
    }

    /// Whether the receiver accepted the delivery.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. } | Self::Acknowledged)
    }

    /// One-line summary for the reason of a failed delivery: status and start of the response, or the error.
    pub fn summary(&self) -> String {
        match self {
            Self::Answered { status, body_head, .. } => {
                let visible: String = body_head.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                let words = visible.split_whitespace().collect::<Vec<_>>().join(" ");
                match &words[..words.floor_char_boundary(SUMMARY_BODY_BYTES_MAX)] {
                    "" => format!("was answered {status}"),
                    start if start.len() < words.len() => format!("was answered {status}: {start}..."),
                    whole => format!("was answered {status}: {whole}"),
                }
            }
            Self::Acknowledged => "was acknowledged".to_owned(),
            Self::Rejected { err, description } => format!("was rejected: {err}: {description}"),
            Self::Failed { class, detail } => format!("failed ({}): {detail}", class.as_str()),
        }
    }

    /// Label for metrics: the class of the status (RFC 9110 section 15; `2xx`), the answer of a polling receiver, or the
    /// error class.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Answered { status, .. } => match status / 100 {
                1 => "1xx",
                2 => "2xx",
                3 => "3xx",
                4 => "4xx",
                5 => "5xx",
                6 => "6xx",
                7 => "7xx",
                8 => "8xx",
                // 999 is the highest: a status has three digits (RFC 9110 section 15.1).
                _ => "9xx",
            },
            Self::Acknowledged => "acknowledged",
            Self::Rejected { .. } => "rejected",
            Self::Failed { class, .. } => class.as_str(),
        }
    }
}

/// A receiver's request in the header `webhook-delivery` of its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ReceiverWish")]
pub enum DeliveryDirective {
    /// Do not send any more events to this endpoint.
    Disable,
    /// Do not retry this delivery.
    Abort,
}

impl DeliveryDirective {
    /// Parses the header's value, ignoring case. `None` if the value is unknown.
    pub fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        [("disable", Self::Disable), ("abort", Self::Abort)]
            .into_iter()
            .find_map(|(word, directive)| value.eq_ignore_ascii_case(word).then_some(directive))
    }
}

/// Why there was no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The host name could not be resolved.
    Resolve,
    /// The address is blocked (SSRF protection).
    Forbidden,
    /// The operator's proxy could not be reached, or refused the tunnel.
    Proxy,
    /// The connection could not be established.
    Connect,
    /// The TLS handshake failed: certificate or protocol.
    Tls,
    /// A timeout: connect, headers or body.
    Timeout,
    /// The connection broke during the exchange.
    Broken,
    /// The request could not be signed or built, because of the subscription's settings.
    Unsendable,
}

impl ErrorClass {
    /// Name in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Forbidden => "forbidden",
            Self::Proxy => "proxy",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Unsendable => "unsendable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_is_one_line() {
        let answered = |body_head: &str| Outcome::Answered {
            status: 503,
            body_head: body_head.to_owned(),
            retry_after_s: None,
            headers: Vec::new(),
            directive: None,
            body_incomplete: None,
        };
        assert_eq!(answered("").summary(), "was answered 503");
        assert_eq!(answered("<p>\r\n busy\u{1b}[2J </p>").summary(), "was answered 503: <p> busy [2J </p>");
        let long = answered(&"\u{e4}".repeat(150)).summary();
        assert_eq!(long, format!("was answered 503: {}...", "\u{e4}".repeat(100)));
        let failed = Outcome::Failed { class: ErrorClass::Connect, detail: "connection refused".into() };
        assert_eq!(failed.summary(), "failed (connect): connection refused");
    }

    #[test]
    fn deserialises_records_of_older_versions() {
        let outcome = r#"{"kind":"answered","status":204,"body_head":"","retry_after_s":null}"#;
        let expected = Outcome::status(204);
        assert_eq!(serde_json::from_str::<Outcome>(outcome).unwrap(), expected);
        let attempt = format!(r#"{{"number":1,"at":"2026-01-02T03:04:05Z","latency_us":1,"outcome":{outcome}}}"#);
        let attempt: Attempt = serde_json::from_str(&attempt).unwrap();
        assert_eq!((attempt.outcome, attempt.sent, attempt.connection), (expected, None, None));
        let failed = r#"{"kind":"failed","class":"tls","detail":"UnknownIssuer"}"#;
        let failed: Outcome = serde_json::from_str(failed).unwrap();
        assert_eq!(failed, Outcome::Failed { class: ErrorClass::Tls, detail: "UnknownIssuer".into() });
    }

    #[test]
    fn class_is_status_class_or_error_class() {
        for status in [100, 204, 399, 404, 599, 600, 700, 800, 999] {
            assert_eq!(Outcome::status(status).class(), format!("{}xx", status / 100));
        }
        assert_eq!(Outcome::Failed { class: ErrorClass::Tls, detail: String::new() }.class(), "tls");
    }

    #[test]
    fn parses_delivery_directive() {
        for (value, expected) in [
            ("disable", Some(DeliveryDirective::Disable)),
            (" Abort ", Some(DeliveryDirective::Abort)),
            ("DISABLE", Some(DeliveryDirective::Disable)),
            ("disabled", None),
            ("", None),
        ] {
            assert_eq!(DeliveryDirective::parse(value), expected, "{value:?}");
        }
    }
}
