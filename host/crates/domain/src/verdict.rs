//! Verdicts and faults of filters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{Digest, FilterName};

/// A filter's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Deliver the claims unchanged.
    Pass,
    /// Apply this JSON Merge Patch (RFC 7396) to the claims. JSON text.
    Patch(String),
    /// Replace all claims. JSON text.
    Replace(String),
    /// Do not deliver, for this reason.
    Drop(String),
}

impl Verdict {
    /// The kind of the verdict, for records and metrics.
    pub fn kind(&self) -> VerdictKind {
        match self {
            Self::Pass => VerdictKind::Pass,
            Self::Patch(_) => VerdictKind::Patch,
            Self::Replace(_) => VerdictKind::Replace,
            Self::Drop(_) => VerdictKind::Drop,
        }
    }
}

/// A verdict without its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// See [`Verdict::Pass`].
    Pass,
    /// See [`Verdict::Patch`].
    Patch,
    /// See [`Verdict::Replace`].
    Replace,
    /// See [`Verdict::Drop`].
    Drop,
}

impl VerdictKind {
    /// Name in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Patch => "patch",
            Self::Replace => "replace",
            Self::Drop => "drop",
        }
    }
}

/// A failed call of a filter. Each variant names the violated limit or rule, so that the tenant can fix the cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// The call used all its fuel.
    #[error("used up its fuel: `fuel_per_call` is {limit}{}", in_function(function))]
    Fuel {
        /// Fuel limit of a call.
        limit: u64,
        /// The running function in the filter's own code, if its name is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        function: Option<String>,
    },
    /// A linear memory would have grown past the limit.
    #[error("asked for {wanted} bytes of memory: `memory_bytes_max` is {limit}{}", in_function(function))]
    Memory {
        /// The total size of all linear memories after the growth, in bytes.
        wanted: u64,
        /// Limit of a call, in bytes.
        limit: u64,
        /// The running function in the filter's own code, if its name is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        function: Option<String>,
    },
    /// A table would have grown past the limit.
    #[error("asked for {wanted} table elements: `table_elements_max` is {limit}")]
    Table {
        /// The total size of all tables after the growth, in elements.
        wanted: u64,
        /// Limit of a call, in elements.
        limit: u64,
    },
    /// The call computed for longer than the limit.
    #[error("took longer than `wall_ms_max`, {limit_ms} ms")]
    Wall {
        /// Limit of a call, in milliseconds.
        limit_ms: u64,
    },
    /// The guest trapped: panic, unreachable, stack overflow, out-of-bounds access.
    #[error("trapped: {detail}")]
    Trap {
        /// The filter's last error message or else the engine's message, followed by the function and location in the
        /// filter's own code, as far as they are known. At most 500 bytes; may contain line breaks.
        detail: String,
    },
    /// Too many host calls, or too many bytes transferred by them.
    #[error("went over its host calls: `{limit_name}` is {limit}")]
    HostCalls {
        /// Configuration key of the limit.
        limit_name: String,
        /// Value of the limit.
        limit: u64,
    },
    /// The output is larger than the limit.
    #[error("returned {bytes} bytes: `output_bytes_max` is {limit}")]
    Output {
        /// Size of the verdict, or of the resulting claims, in bytes.
        bytes: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// The resulting claims are not a valid SET.
    #[error("returned something that is not a valid SET: {detail}")]
    NotASet {
        /// The error and its position.
        detail: String,
    },
    /// A sealed claim was changed.
    #[error("changed `{claim}`, which is sealed: a filter may not change iss, iat, jti, aud or txn")]
    Sealed {
        /// Name of the claim.
        claim: String,
    },
    /// The filter returned a permanent failure.
    #[error("refused: {reason}")]
    Permanent {
        /// The filter's message, truncated.
        reason: String,
    },
    /// The filter returned a transient failure.
    #[error("cannot decide now: {reason}")]
    Transient {
        /// The filter's message, truncated.
        reason: String,
    },
    /// The filter version is suspended because it faulted too often. It was not called.
    #[error("is suspended: {reason}")]
    Suspended {
        /// Reason of the suspension.
        reason: String,
    },
    /// The pinned version, or something that it needs, is not available on this host.
    #[error("could not be started: {detail}")]
    Unavailable {
        /// Name of the missing item.
        detail: String,
    },
}

fn in_function(function: &Option<String>) -> String {
    function.as_ref().map(|function| format!(", in {function}")).unwrap_or_default()
}

impl Fault {
    /// Stable identifier of each variant, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fuel { .. } => "fuel",
            Self::Memory { .. } => "memory",
            Self::Table { .. } => "table",
            Self::Wall { .. } => "wall",
            Self::Trap { .. } => "trap",
            Self::HostCalls { .. } => "host_calls",
            Self::Output { .. } => "output",
            Self::NotASet { .. } => "not_a_set",
            Self::Sealed { .. } => "sealed",
            Self::Permanent { .. } => "permanent",
            Self::Transient { .. } => "transient",
            Self::Suspended { .. } => "suspended",
            Self::Unavailable { .. } => "unavailable",
        }
    }

    /// Whether the filter itself is at fault, so that this counts towards its suspension.
    pub fn is_caused_by_filter(&self) -> bool {
        !self.is_transient() && !matches!(self, Self::Suspended { .. })
    }

    /// Whether a retry may succeed. Other faults follow the binding's fault policy.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. } | Self::Unavailable { .. })
    }
}

/// Action on a delivery if a filter faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultPolicy {
    /// Hold it until an operator decides: a failed redaction must not leak data.
    #[default]
    Hold,
    /// Continue as if the filter were not in the chain.
    Open,
    /// End it as dropped.
    Drop,
}

/// One call of a filter, as recorded for a delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FilterRun {
    /// Name of the filter.
    pub filter: FilterName,
    /// Digest of the version that ran.
    pub digest: Digest,
    /// The verdict. Absent if the call faulted.
    pub verdict: Option<VerdictKind>,
    /// Reason of a drop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The fault. Absent if the filter returned a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Fuel used.
    pub fuel: u64,
    /// Peak of linear memory, in bytes.
    pub memory_bytes: u64,
    /// Time from the request of an instance slot to the verdict, in microseconds.
    pub elapsed_us: u64,
    /// Log lines, truncated to the limit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
    /// The engine that ran it. Absent in records of older versions. The verdict does not depend on it; fuel and trap
    /// messages may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Number of events that the instance has processed, including this one. Absent if the instance was for this event
    /// only. From 2 on, the result may depend on earlier events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_events: Option<u32>,
}

impl FilterRun {
    /// The record of a filter that was not called.
    pub fn not_called(filter: FilterName, digest: Digest) -> Self {
        Self {
            filter,
            digest,
            verdict: None,
            reason: None,
            fault: None,
            fuel: 0,
            memory_bytes: 0,
            elapsed_us: 0,
            log: Vec::new(),
            engine: None,
            instance_events: None,
        }
    }

    /// Whether its instance processed other events before.
    pub fn is_reused(&self) -> bool {
        self.instance_events.is_some_and(|events| events > 1)
    }
}

/// A log line of a filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Log level.
    pub level: LogLevel,
    /// The text, with control characters replaced.
    pub text: String,
}

/// Log level of a filter's log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words are the WIT's own and explained there")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}
