use serde::Serialize;

/// The decision of a filter.
///
/// [`patch`](Verdict::patch) and [`replace`](Verdict::replace) serialise JSON, which can fail; they return the `Result`
/// that a filter returns, so that they can be its last expression without an `Ok`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Deliver the claims unchanged, byte for byte.
    Pass,
    /// An RFC 7396 merge patch to the claims, as JSON text.
    Patch(String),
    /// A whole claims set, as JSON text.
    Replace(String),
    /// Do not deliver, for this reason.
    Drop(String),
}

impl Verdict {
    /// Deliver the claims unchanged, byte for byte.
    pub fn pass() -> Verdict {
        Verdict::Pass
    }

    /// An RFC 7396 merge patch to the whole claims set; members that it does not name keep their exact bytes.
    /// [`Event::patch_body`](crate::Event::patch_body) is a shorter way to patch the event's own member.
    pub fn patch(patch: impl Serialize) -> Result<Verdict> {
        Ok(Verdict::Patch(serde_json::to_string(&patch)?))
    }

    /// A whole claims set. It must be a valid SET with unchanged `iss`, `iat`, `jti`, `aud` and `txn`: start from
    /// [`Event::claims`](crate::Event::claims).
    pub fn replace(claims: impl Serialize) -> Result<Verdict> {
        Ok(Verdict::Replace(serde_json::to_string(&claims)?))
    }

    /// Do not deliver. The reason is shown in the delivery's history.
    pub fn drop_because(reason: impl Into<String>) -> Verdict {
        Verdict::Drop(reason.into())
    }
}

/// The reason for which a filter returned no verdict.
///
/// Every `std::error::Error` converts to a permanent failure with its text, so that `?` works on any error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A temporary problem: the delivery is retried on the subscription's schedule.
    Transient(String),
    /// A retry would not help: the binding's fault policy (hold, open or drop) applies.
    Permanent(String),
}

impl Failure {
    /// A temporary problem: the delivery is retried on the subscription's schedule.
    pub fn transient(reason: impl Into<String>) -> Failure {
        Failure::Transient(reason.into())
    }

    /// A retry would not help: the binding's fault policy (hold, open or drop) applies.
    pub fn permanent(reason: impl Into<String>) -> Failure {
        Failure::Permanent(reason.into())
    }
}

// `Failure` does not implement `Error` itself, which is what makes this blanket implementation possible.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        Failure::Permanent(reason)
    }
}

/// The result type of filters and of most functions in this crate.
pub type Result<T, E = Failure> = std::result::Result<T, E>;
