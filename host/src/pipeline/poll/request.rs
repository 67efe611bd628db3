//! The body of a poll (RFC 8936 section 2.2) and of its answer (section 2.3).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setgate_domain::text::{strip_bom, visible_start};

/// Limit for the SETs of one answer. `maxEvents` may ask for fewer.
pub(super) const SETS_MAX: usize = 100;
/// Limit for an `err` or `description` of a receiver in the history, in characters.
pub(super) const REFUSAL_CHARS_MAX: usize = 500;

/// A poll. Unknown members are ignored (RFC 8936 section 2.2).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PollRequest {
    /// The most SETs to return. 0 returns none, so that the request only acknowledges. At most 100 are returned.
    pub max_events: Option<u64>,
    /// Whether to answer at once if there is no SET. By default, the request is held until there is one, or for up to
    /// 25 s.
    pub return_immediately: bool,
    /// The `jti` of each SET that the receiver has stored.
    pub ack: Vec<String>,
    /// The `jti` of each SET that the receiver does not accept, with the reason.
    pub set_errs: BTreeMap<String, SetError>,
}

/// Why the receiver does not accept a SET (RFC 8936 section 2.6).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct SetError {
    /// The error code (RFC 8935 section 2.4).
    pub err: String,
    /// A description for people.
    #[serde(default)]
    pub description: String,
}

/// The answer to a poll.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PollAnswer {
    /// Signed SETs by `jti`, each a compact JWS, oldest first. Empty if there is none.
    #[schemars(with = "BTreeMap<String, String>")]
    pub sets: serde_json::Map<String, serde_json::Value>,
    /// Whether there are further SETs.
    pub more_available: bool,
}

impl PollRequest {
    /// Parses a body. An empty one is a poll without members.
    ///
    /// # Errors
    /// The member and its fault.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let body = strip_bom(body).trim_ascii();
        match body.first() {
            None => Ok(Self::default()),
            Some(b'{') => serde_json::from_slice(body).map_err(|error| error.to_string()),
            // serde would read an array as the members in their order.
            Some(_) => Err("it is not a JSON object".to_owned()),
        }
    }

    pub(super) fn sets_max(&self) -> usize {
        let asked = self.max_events.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        asked.unwrap_or(SETS_MAX).min(SETS_MAX)
    }
}

impl SetError {
    /// The error with both texts cut to their limit, and without control characters.
    pub(super) fn limited(&self) -> Self {
        let start = |text: &str| visible_start(text, REFUSAL_CHARS_MAX);
        Self { err: start(&self.err), description: start(&self.description) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_optional_and_have_their_types() {
        for empty in ["", " \n", "{}", "\u{feff}{}", r#"{"unknown": 1}"#] {
            let poll = PollRequest::parse(empty.as_bytes()).unwrap();
            assert!(!poll.return_immediately && poll.ack.is_empty() && poll.sets_max() == SETS_MAX, "{empty:?}");
        }
        let text = r#"{"maxEvents":0,"returnImmediately":true,"ack":["a"],"setErrs":{"b":{"err":"invalid_key","description":"d"}}}"#;
        let poll = PollRequest::parse(text.as_bytes()).unwrap();
        assert!(poll.return_immediately && poll.sets_max() == 0 && poll.ack == ["a"]);
        assert_eq!(poll.set_errs["b"].err, "invalid_key");
        assert_eq!(PollRequest::parse(br#"{"maxEvents":1000000}"#).unwrap().sets_max(), SETS_MAX);
        for wrong in [
            "[]",
            "nonsense",
            r#"{"maxEvents":"1"}"#,
            r#"{"maxEvents":-1}"#,
            r#"{"maxEvents":1.5}"#,
            r#"{"returnImmediately":"yes"}"#,
            r#"{"ack":"a"}"#,
            r#"{"ack":[1]}"#,
            r#"{"setErrs":["a"]}"#,
            r#"{"setErrs":{"a":"bad"}}"#,
            r#"{"setErrs":{"a":{"description":"no code"}}}"#,
        ] {
            assert!(PollRequest::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn error_texts_are_limited_and_visible() {
        let error = SetError { err: "a\u{1b}b".into(), description: "x".repeat(10_000) }.limited();
        assert_eq!(error.err, "a b");
        assert_eq!(error.description.len(), REFUSAL_CHARS_MAX);
    }
}
