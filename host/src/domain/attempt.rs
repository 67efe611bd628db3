//! Attempts: one exchange with a receiver each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{Digest, SigningKeyId};
use super::time::Timestamp;

/// Bytes of an answer's body that [`Outcome::in_words`] quotes.
const WORDS_BYTES_MAX: usize = 200;

/// One exchange with a receiver, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// From its begin to the end of the answer or the error, in microseconds.
    pub latency_us: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// The keys it was signed with.
    #[serde(default)]
    pub signed_with: Vec<SigningKeyId>,
    /// What was sent, or was to be sent where there was no connection. None where no request could be made up, and in
    /// records from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Sent>,
    /// What it was sent over; none where there was no connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
}

/// The request of an attempt, as far as it is kept. The body itself can be made again from the delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sent {
    /// The endpoint's URL as it was then: scheme, host, port and the last four characters of its path and query, which are secret.
    pub url: String,
    /// Names in lower case and values, each name once. Values of the headers that the endpoint was given are
    /// `***`.
    pub headers: Vec<(String, String)>,
    /// SHA-256 of the body.
    pub body_digest: Digest,
    /// Bytes of the body.
    pub body_bytes: u64,
}

/// The connection of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connection {
    /// What was spoken on it.
    pub http: HttpVersion,
    /// Address and port at its other end; none where that was the operator's proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Whether it led through the operator's proxy.
    #[serde(default)]
    pub proxied: bool,
}

/// A version of HTTP, by the name it has in ALPN (RFC 7301) where it is in use today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HttpVersion {
    /// HTTP/1.0 or HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http1,
    /// HTTP/2.
    #[serde(rename = "h2")]
    Http2,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The receiver answered; 2xx is success, all else is not.
    Answered {
        /// HTTP status.
        status: u16,
        /// The first bytes of the body, as text, bounded by `response_bytes_kept`.
        body_head: String,
        /// `Retry-After`, in seconds from the answer, where the receiver sent one that can be read.
        retry_after_s: Option<u32>,
        /// Its headers in their order, bounded by `egress.response_headers_kept` and `response_header_bytes_kept`:
        /// names in lower case and values. Values of cookies are `***`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
        /// What the receiver asked for with `webhook-delivery`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wish: Option<ReceiverWish>,
        /// Why the body is incomplete, if it is: the connection broke off within it, or it had not ended in time. The
        /// status counts all the same. Absent if the body was read to its end or up to `egress.response_bytes_max`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body_incomplete: Option<String>,
    },
    /// No answer.
    Failed {
        /// What went wrong, for counting and for people.
        class: ErrorClass,
        /// In words, without secrets.
        detail: String,
    },
}

impl Outcome {
    /// An answer with this status and nothing else.
    pub fn status(status: u16) -> Self {
        Self::Answered {
            status,
            body_head: String::new(),
            retry_after_s: None,
            headers: Vec::new(),
            wish: None,
            body_incomplete: None,
        }
    }

    /// Whether the receiver took the delivery.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
    }

    /// In one line, for the reason of a delivery that is given up: status and beginning of the answer, or what went wrong.
    pub fn in_words(&self) -> String {
        match self {
            Self::Answered { status, body_head, .. } => {
                let visible: String = body_head.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                let words = visible.split_whitespace().collect::<Vec<_>>().join(" ");
                match &words[..words.floor_char_boundary(WORDS_BYTES_MAX)] {
                    "" => format!("was answered {status}"),
                    start if start.len() < words.len() => format!("was answered {status}: {start}..."),
                    whole => format!("was answered {status}: {whole}"),
                }
            }
            Self::Failed { class, detail } => format!("failed ({}): {detail}", class.as_str()),
        }
    }

    /// What it is counted as: the hundreds of its status (RFC 9110 section 15; `2xx`), or its error class.
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
                // There is none beyond 999 (section 15.1 of that RFC wants three digits).
                _ => "9xx",
            },
            Self::Failed { class, .. } => class.as_str(),
        }
    }
}

/// What a receiver may ask for in the header `webhook-delivery` of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReceiverWish {
    /// Nothing more is to be sent here.
    Disable,
    /// This delivery is not to be tried again.
    Abort,
}

impl ReceiverWish {
    /// Reads the value of the header, in either case; none where it is another word.
    pub fn read(value: &str) -> Option<Self> {
        let value = value.trim();
        [("disable", Self::Disable), ("abort", Self::Abort)]
            .into_iter()
            .find_map(|(word, wish)| value.eq_ignore_ascii_case(word).then_some(wish))
    }
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The name did not resolve.
    Resolve,
    /// The address is not allowed (SSRF guard).
    Forbidden,
    /// The operator's proxy could not be reached, or did not open a way through.
    Proxy,
    /// No connection.
    Connect,
    /// TLS failed: certificate or protocol.
    Tls,
    /// Too slow: connect, headers or body.
    Timeout,
    /// The exchange broke off.
    Broken,
    /// The delivery could not be signed or built: the subscription's own settings.
    Unsendable,
}

impl ErrorClass {
    /// The word used in records and metrics.
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
    fn an_outcome_is_told_in_one_line() {
        let answered = |body_head: &str| Outcome::Answered {
            status: 503,
            body_head: body_head.to_owned(),
            retry_after_s: None,
            headers: Vec::new(),
            wish: None,
            body_incomplete: None,
        };
        assert_eq!(answered("").in_words(), "was answered 503");
        assert_eq!(answered("<p>\r\n busy\u{1b}[2J </p>").in_words(), "was answered 503: <p> busy [2J </p>");
        let long = answered(&"\u{e4}".repeat(150)).in_words();
        assert_eq!(long, format!("was answered 503: {}...", "\u{e4}".repeat(100)));
        let failed = Outcome::Failed { class: ErrorClass::Connect, detail: "connection refused".into() };
        assert_eq!(failed.in_words(), "failed (connect): connection refused");
    }

    #[test]
    fn what_older_ledgers_hold_is_read() {
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
    fn an_outcome_is_counted_by_the_hundreds_of_its_status_or_by_its_error() {
        for status in [100, 204, 399, 404, 599, 600, 700, 800, 999] {
            assert_eq!(Outcome::status(status).class(), format!("{}xx", status / 100));
        }
        assert_eq!(Outcome::Failed { class: ErrorClass::Tls, detail: String::new() }.class(), "tls");
    }

    #[test]
    fn a_wish_is_one_of_two_words() {
        for (value, expected) in [
            ("disable", Some(ReceiverWish::Disable)),
            (" Abort ", Some(ReceiverWish::Abort)),
            ("DISABLE", Some(ReceiverWish::Disable)),
            ("disabled", None),
            ("", None),
        ] {
            assert_eq!(ReceiverWish::read(value), expected, "{value:?}");
        }
    }
}
