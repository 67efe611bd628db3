//! Attempts: one exchange with a receiver each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::SigningKeyId;
use super::time::Timestamp;

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
    /// Whether the receiver took the delivery.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
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
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Unsendable => "unsendable",
        }
    }
}
