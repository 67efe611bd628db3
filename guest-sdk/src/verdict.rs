use serde::Serialize;

/// What a filter decides.
///
/// [`patch`](Verdict::patch) and [`replace`](Verdict::replace) write JSON, which can fail; they return the `Result`
/// that a filter returns, so that they stand at its end without an `Ok`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Leave the claims as they are: the bytes that came in go on.
    Pass,
    /// An RFC 7396 merge patch over the claims, as JSON text.
    Patch(String),
    /// A whole claims set, as JSON text.
    Replace(String),
    /// Do not deliver, for this reason.
    Drop(String),
}

impl Verdict {
    /// Leave the claims as they are: the bytes that came in go on.
    pub fn pass() -> Verdict {
        Verdict::Pass
    }

    /// An RFC 7396 merge patch over the whole claims set; what it does not name keeps its exact bytes.
    /// [`Event::patch_body`](crate::Event::patch_body) is the shorter way to patch the event's own member.
    pub fn patch(patch: impl Serialize) -> Result<Verdict> {
        Ok(Verdict::Patch(serde_json::to_string(&patch)?))
    }

    /// A whole claims set. It has to be a valid SET, and `iss`, `iat`, `jti`, `aud` and `txn` must be as they were:
    /// start from [`Event::claims`](crate::Event::claims).
    pub fn replace(claims: impl Serialize) -> Result<Verdict> {
        Ok(Verdict::Replace(serde_json::to_string(&claims)?))
    }

    /// Do not deliver. The reason is shown in the delivery's history.
    pub fn drop_because(reason: impl Into<String>) -> Verdict {
        Verdict::Drop(reason.into())
    }
}

/// Why a filter could not decide.
///
/// Every `std::error::Error` becomes a permanent failure with its text, so that `?` works on whatever goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It may work later: the delivery is tried again on the subscription's schedule.
    Transient(String),
    /// It will not work: the binding's fault policy (hold, open or drop) decides.
    Permanent(String),
}

impl Failure {
    /// It may work later: the delivery is tried again on the subscription's schedule.
    pub fn transient(reason: impl Into<String>) -> Failure {
        Failure::Transient(reason.into())
    }

    /// It will not work: the binding's fault policy (hold, open or drop) decides.
    pub fn permanent(reason: impl Into<String>) -> Failure {
        Failure::Permanent(reason.into())
    }
}

// `Failure` is no `Error` itself: that is what lets this cover every error there is.
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

/// What filters and most of this crate return.
pub type Result<T, E = Failure> = std::result::Result<T, E>;
