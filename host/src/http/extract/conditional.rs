//! Conditional requests (RFC 9110 section 13): `if-match` and `if-none-match`.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::json;

use crate::control::ABSENT;
use crate::http::openapi::{DescribeInput, OperationDraft};
use crate::http::problem::{Code, Problem};

/// The version that a change expects (RFC 9110 section 13.1.1): one strong tag. `None`, as well as `*`, matches any
/// version. A PUT with `if-none-match: *` expects [`ABSENT`] (section 13.1.2).
pub(in crate::http) struct IfMatch(pub(in crate::http) Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let makes = parts.method == Method::PUT && IfNoneMatch::of(&parts.headers).is_any();
        let Some(given) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(makes.then_some(ABSENT))) };
        let tag = given.to_str().unwrap_or_default().trim();
        if tag == "*" {
            return Ok(Self(None));
        }
        let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
        version.map(|version| Self(Some(version))).ok_or_else(|| {
            let detail = "`if-match` is not an ETag of this host: send the ETag of your last GET";
            Problem::new(Code::VersionChanged, detail)
        })
    }
}

impl DescribeInput for IfMatch {
    fn describe(draft: &mut OperationDraft<'_>) {
        let schema = json!({"type": "string", "pattern": "^(\\*|\"[0-9]{1,19}\")$"});
        draft.in_header(
            "if-match",
            &schema,
            "The `ETag` of the version to change. `*` or no header matches any version.",
        );
        if *draft.method() == Method::PUT {
            let schema = json!({"type": "string", "enum": ["*"]});
            draft.in_header("if-none-match", &schema, "`*` creates the resource only if it does not exist.");
        }
        draft.errors([412]);
    }
}

/// The versions that the client has cached (RFC 9110 section 13.1.2).
pub(in crate::http) struct IfNoneMatch(Vec<HeaderValue>);

impl IfNoneMatch {
    pub(in crate::http) fn of(headers: &HeaderMap) -> Self {
        Self(headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect())
    }

    /// Whether the header is `*`.
    fn is_any(&self) -> bool {
        self.0.iter().any(|given| given.as_bytes() == b"*")
    }

    /// Whether the client has this version.
    pub(in crate::http) fn has(&self, tag: &str) -> bool {
        let given = self.0.iter().filter_map(|tags| tags.to_str().ok());
        let mut given = given.flat_map(|tags| tags.split(',')).map(str::trim);
        // Weak comparison, since a proxy may have weakened the tag.
        given.any(|given| given == "*" || given.trim_start_matches("W/") == tag)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

impl DescribeInput for IfNoneMatch {
    fn describe(draft: &mut OperationDraft<'_>) {
        draft.known_versions();
    }
}
