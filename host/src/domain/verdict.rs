//! What a filter decides, and what can go wrong with one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{Digest, FilterName};

/// The filter's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The claims stay as they are.
    Pass,
    /// RFC 7396 merge patch over the claims, as JSON text.
    Patch(String),
    /// A whole claims set, as JSON text.
    Replace(String),
    /// Not to be delivered, and why.
    Drop(String),
}

impl Verdict {
    /// `pass`, `patch`, `replace` or `drop`: for records and metrics.
    pub fn kind(&self) -> VerdictKind {
        match self {
            Self::Pass => VerdictKind::Pass,
            Self::Patch(_) => VerdictKind::Patch,
            Self::Replace(_) => VerdictKind::Replace,
            Self::Drop(_) => VerdictKind::Drop,
        }
    }
}

/// A verdict without its payload.
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
    /// The word used in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Patch => "patch",
            Self::Replace => "replace",
            Self::Drop => "drop",
        }
    }
}

/// What went wrong with a filter's call. Each names the limit or rule that answered, so that a tenant can act on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// The call used all its fuel.
    #[error("used up its fuel: `fuel_per_call` is {limit}{}", in_function(function))]
    Fuel {
        /// Units of fuel allowed per call.
        limit: u64,
        /// The filter's function that was running, if its name is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        function: Option<String>,
    },
    /// Linear memories or tables would have grown past the limit.
    #[error("asked for {wanted} bytes of memory: `memory_bytes_max` is {limit}{}", in_function(function))]
    Memory {
        /// What all linear memories together would have come to, in bytes.
        wanted: u64,
        /// Bytes allowed per call.
        limit: u64,
        /// The filter's function that was running, if its name is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        function: Option<String>,
    },
    /// A table would have grown past the limit.
    #[error("asked for {wanted} table elements: `table_elements_max` is {limit}")]
    Table {
        /// Elements all tables together would have come to.
        wanted: u64,
        /// Elements allowed per call.
        limit: u64,
    },
    /// The call took longer than allowed.
    #[error("took longer than `wall_ms_max`, {limit_ms} ms")]
    Wall {
        /// Milliseconds allowed per call.
        limit_ms: u64,
    },
    /// The guest trapped: panic, unreachable, stack overflow, out of bounds.
    #[error("trapped: {detail}")]
    Trap {
        /// The message that the filter ended with, or the engine's words, and then the first function of the filter's own
        /// code with its place, as far as they are known. Bounded to 500 bytes; line breaks stay.
        detail: String,
    },
    /// More host calls, or bytes through them, than allowed.
    #[error("went over its host calls: `{limit_name}` is {limit}")]
    HostCalls {
        /// The configuration key of the limit that answered.
        limit_name: String,
        /// Its value.
        limit: u64,
    },
    /// The verdict is larger than allowed.
    #[error("returned {bytes} bytes: `output_bytes_max` is {limit}")]
    Output {
        /// Size of the verdict, or of the claims after it, in bytes.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// What came back does not make a valid SET.
    #[error("returned something that is not a valid SET: {detail}")]
    NotASet {
        /// What was wrong and where.
        detail: String,
    },
    /// A sealed claim was changed.
    #[error("changed `{claim}`, which is sealed: a filter may not change iss, iat, jti, aud or txn")]
    Sealed {
        /// The claim.
        claim: String,
    },
    /// The filter itself said that it will not work.
    #[error("refused: {reason}")]
    Permanent {
        /// The filter's words, bounded.
        reason: String,
    },
    /// The filter itself said that it may work later.
    #[error("cannot decide now: {reason}")]
    Transient {
        /// The filter's words, bounded.
        reason: String,
    },
    /// Its version is suspended: it faulted too often. It was not called.
    #[error("is suspended: {reason}")]
    Suspended {
        /// Why it was suspended, in words.
        reason: String,
    },
    /// The pinned version, or what it needs, is not at hand at this host.
    #[error("could not be started: {detail}")]
    Unavailable {
        /// What is missing.
        detail: String,
    },
}

fn in_function(function: &Option<String>) -> String {
    function.as_ref().map(|function| format!(", in {function}")).unwrap_or_default()
}

impl Fault {
    /// One short word per kind: for metrics.
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

    /// Whether the filter's own code is to blame, so that it counts towards its suspension.
    pub fn is_filters_own(&self) -> bool {
        !self.is_transient() && !matches!(self, Self::Suspended { .. })
    }

    /// Whether trying again later can help. All else follows the binding's fault policy.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. } | Self::Unavailable { .. })
    }
}

/// What happens to a delivery when a filter faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultPolicy {
    /// Keep it back until a person decides: a redaction that failed must not leak.
    #[default]
    Hold,
    /// Go on as if the filter were not in the chain.
    Open,
    /// End the delivery as dropped.
    Drop,
}

/// What one call of one filter cost and gave: part of the delivery's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FilterRun {
    /// The filter's name.
    pub filter: FilterName,
    /// The version that ran.
    pub digest: Digest,
    /// What it decided; none where it faulted.
    pub verdict: Option<VerdictKind>,
    /// The drop's reason, where it dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What went wrong; none where it decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Fuel used.
    pub fuel: u64,
    /// Most linear memory in use at once, in bytes.
    pub memory_bytes: u64,
    /// Time from asking for an instance slot to the verdict, in microseconds.
    pub elapsed_us: u64,
    /// What it logged, bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
    /// The engine that ran it; none in records older than this field. The verdict does not depend on it, the fuel and the
    /// words of a trap may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Events that its instance has seen, this one included; none where the instance was for this event alone. From the
    /// second on, what came of it may depend on those before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_events: Option<u32>,
}

impl FilterRun {
    /// The record of a filter that was not called: nothing decided, nothing used.
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

    /// Whether its instance had seen other events before.
    pub fn is_reused(&self) -> bool {
        self.instance_events.is_some_and(|events| events > 1)
    }
}

/// A line a filter wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// The line, control characters replaced.
    pub text: String,
}

/// How much a filter's line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words are the WIT's own and explained there")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}
