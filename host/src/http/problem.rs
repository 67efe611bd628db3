//! Maps errors to answers: RFC 9457 problem details with a stable `code`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use crate::control;
use crate::pipeline::accept::Refused;
use crate::pipeline::prove::{Presented, Unproven};

/// Prefix of each problem's `type`, followed by its code.
pub const TYPE_BASE: &str = "https://schemas.setgate.dev/errors/";
/// `Retry-After` (seconds) of a busy host.
const RETRY_AFTER_S: u32 = 2;
/// `Retry-After` (seconds) of a host that is short of disk space, which takes longer to resolve.
const SPACE_RETRY_AFTER_S: u32 = 30;

/// All codes in alphabetical order. Each has a page in `docs/errors`.
pub const CODES: [&str; 67] = [
    "backlog_full",
    "backtest_running",
    "bad_claim",
    "bad_cursor",
    "bad_key",
    "bad_signature",
    "bad_token",
    "body_broken",
    "body_too_large",
    "body_too_slow",
    "busy",
    "coding_broken",
    "compile_queue_full",
    "conflict",
    "disk_low",
    "duplicate_key",
    "endpoint_not_verified",
    "filter_compile_limit",
    "filter_core_module",
    "filter_import",
    "filter_invalid",
    "filter_no_transform",
    "filter_not_compiled",
    "filter_not_wasm",
    "filter_precompiled",
    "filter_start",
    "filter_too_complex",
    "filter_too_large",
    "filter_wrong_types",
    "filter_wrong_version",
    "forbidden",
    "idempotency_answer_lost",
    "idempotency_answers_full",
    "idempotency_key_in_progress",
    "idempotency_key_invalid",
    "idempotency_key_reused",
    "invalid_body",
    "invalid_field",
    "invalid_query",
    "issuer_not_allowed",
    "jti_conflict",
    "ledger_damaged",
    "ledger_full",
    "lone_surrogate",
    "malformed_json",
    "missing_claim",
    "no_method",
    "no_route",
    "not_an_object",
    "not_found",
    "not_ready",
    "not_stored",
    "not_utf8",
    "request_timeout",
    "secret_unreadable",
    "storage_full",
    "too_deep",
    "too_large",
    "too_many_bytes",
    "too_often",
    "unexpected_verification",
    "unknown_source",
    "unsupported_coding",
    "unsupported_media_type",
    "unsupported_transfer_coding",
    "version_changed",
    "wrong_form",
];

/// An error response.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after_s: Option<u32>,
    accept_encoding: Option<&'static str>,
}

/// The reason for which a request failed (RFC 9457).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Body<'a> {
    /// Identifies the kind of problem: a fixed prefix followed by the code.
    #[schemars(extend("format" = "uri"))]
    r#type: String,
    /// The name of the status.
    title: &'a str,
    /// The HTTP status.
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    /// Identifies the kind of problem in one stable word.
    #[schemars(extend("enum" = CODES.as_slice()))]
    code: &'a str,
    /// The error, its location, and how to fix it.
    detail: &'a str,
}

impl Problem {
    /// A problem with its code, and a message that states the error, its location, and how to fix it.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        debug_assert!(CODES.contains(&code), "`{code}` is not in CODES");
        Self { status, code, detail: detail.into(), retry_after_s: None, accept_encoding: None }
    }

    /// With the content codings that would be accepted (RFC 9110 section 15.5.16).
    pub(super) fn accepting(self, codings: &'static str) -> Self {
        Self { accept_encoding: Some(codings), ..self }
    }

    /// For a path that does not exist, or not on this listener.
    pub(super) fn no_route() -> Self {
        let detail =
            "there is no such route: events go to /ingest/{tenant}/{source}, management to /api/v1/tenants/...";
        Self::new(StatusCode::NOT_FOUND, "no_route", detail)
    }

    pub(super) fn busy(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { retry_after_s: Some(RETRY_AFTER_S), ..Self::new(status, code, detail) }
    }

    fn short_of_space(code: &'static str, detail: String) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { retry_after_s: Some(SPACE_RETRY_AFTER_S), ..Self::new(status, code, detail) }
    }

    /// Errors of the storage engine are for the operator's log, not for tenants. They are logged here unless the ledger
    /// has already logged them.
    fn not_stored(error: &impl std::fmt::Display, is_told: bool, is_damage: bool) -> Self {
        if is_damage {
            tracing::error!(%error, "a part of the ledger cannot be read");
            let detail =
                "what was asked for is damaged on the host's disk: its operator is told, and can put a backup back";
            return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "ledger_damaged", detail);
        }
        if is_told {
            tracing::debug!(%error, "the ledger failed");
        } else {
            tracing::error!(%error, "the ledger failed");
        }
        let detail = "the host cannot reach its ledger just now; nothing was stored: send it again later";
        Self::busy(StatusCode::SERVICE_UNAVAILABLE, "not_stored", detail)
    }
}

impl Problem {
    /// The code, for metrics.
    pub fn code(&self) -> &'static str {
        self.code
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: format!("{TYPE_BASE}{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(codings) = self.accept_encoding {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(codings));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"setgate\""));
        }
        response
    }
}

impl Problem {
    /// For an ingest request without a valid proof, or to a source that does not exist. Depends only on the kind of
    /// proof presented, so that it reveals neither which tenants and sources exist nor which proofs they require.
    pub(super) fn unproven(presented: Presented) -> Self {
        let (code, given) = match presented {
            Presented::Nothing => ("bad_signature", "the request presents no proof".to_owned()),
            Presented::Signature(header) => {
                ("bad_signature", format!("the signature in `{header}` is not accepted here"))
            }
            Presented::Key => ("bad_key", "this key is not accepted here".to_owned()),
            Presented::Token => ("bad_token", "this `Authorization` is not accepted here".to_owned()),
        };
        let detail = format!(
            "{given}: there is no such source, or the proof is not one of its `proofs`; check the path against the source's \
             `ingest_path`, then the header, the secret, the sender's clock, and that nothing changes the body on its way \
             (the host's log and `setgate_ingest_total` say which)"
        );
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
    }

    /// For a refused ingest request with this kind of proof.
    pub(super) fn refused(refused: Refused, presented: Presented) -> Self {
        let (code, detail) = (refused.code(), refused.to_string());
        match &refused {
            Refused::Unproven(Unproven::SecretUnreadable) => {
                tracing::error!(%detail, "ingest");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, detail)
            }
            Refused::Unproven(Unproven::KeyScope) => Self::new(StatusCode::FORBIDDEN, code, detail),
            Refused::Unproven(_) => Self::unproven(presented),
            Refused::NotAnEvent(refusal) if refusal.code() == "unsupported_media_type" => {
                Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, detail)
            }
            Refused::NotAnEvent(refusal) if refusal.code() == "body_too_large" => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, code, detail)
            }
            Refused::NotAnEvent(_) => Self::new(StatusCode::BAD_REQUEST, code, detail),
            Refused::Conflict(_) => Self::new(StatusCode::CONFLICT, code, detail),
            Refused::Backlog { .. } | Refused::Storage { .. } | Refused::Rate { .. } | Refused::Flood { .. } => {
                Self::busy(StatusCode::TOO_MANY_REQUESTS, code, detail)
            }
            Refused::Short(_) => Self::short_of_space(code, detail),
            Refused::Ledger(error) => Self::not_stored(error, error.is_told(), error.is_damage()),
        }
    }
}

impl From<control::Error> for Problem {
    fn from(error: control::Error) -> Self {
        let detail = error.to_string();
        match &error {
            control::Error::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "not_found", detail),
            control::Error::Conflict(_) | control::Error::NameTaken(_) => {
                Self::new(StatusCode::CONFLICT, "conflict", detail)
            }
            control::Error::Version { .. } => Self::new(StatusCode::PRECONDITION_FAILED, "version_changed", detail),
            control::Error::Invalid { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", detail),
            control::Error::Rejected(rejected) => {
                let code = match rejected.kind() {
                    "compile_queue" => {
                        return Self::busy(StatusCode::TOO_MANY_REQUESTS, "compile_queue_full", detail);
                    }
                    "too_large" => return Self::new(StatusCode::PAYLOAD_TOO_LARGE, "filter_too_large", detail),
                    "precompiled" => "filter_precompiled",
                    "core_module" => "filter_core_module",
                    "not_wasm" => "filter_not_wasm",
                    "structure" => "filter_too_complex",
                    "no_transform" => "filter_no_transform",
                    "wrong_version" => "filter_wrong_version",
                    "wrong_types" => "filter_wrong_types",
                    "import" => "filter_import",
                    "compile_limit" => "filter_compile_limit",
                    "start" => "filter_start",
                    _ => "filter_invalid",
                };
                if rejected.is_hosts_fault() {
                    return Self::busy(StatusCode::SERVICE_UNAVAILABLE, "filter_not_compiled", detail);
                }
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
            }
            control::Error::BacktestRunning => Self::busy(StatusCode::TOO_MANY_REQUESTS, "backtest_running", detail),
            control::Error::Busy(_) => Self::busy(StatusCode::TOO_MANY_REQUESTS, "busy", detail),
            control::Error::TooOften { .. } => Self::busy(StatusCode::TOO_MANY_REQUESTS, "too_often", detail),
            control::Error::NotVerified { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "endpoint_not_verified", detail)
            }
            control::Error::BadCursor => Self::new(StatusCode::BAD_REQUEST, "bad_cursor", detail),
            control::Error::StorageFull { .. } => Self::busy(StatusCode::TOO_MANY_REQUESTS, "storage_full", detail),
            control::Error::Short(shortage) => Self::short_of_space(shortage.code(), detail),
            control::Error::Ledger(error) => Self::not_stored(error, error.is_told(), error.is_damage()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_code_has_a_page_and_each_page_a_code() {
        assert!(CODES.is_sorted());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
        let index = std::fs::read_to_string(folder.join("README.md")).unwrap();
        for code in CODES {
            let page = std::fs::read_to_string(folder.join(format!("{code}.md"))).unwrap_or_default();
            assert!(page.starts_with(&format!("# {code}\n")), "docs/errors/{code}.md says what `{code}` means");
            assert!(index.contains(&format!("[`{code}`]({code}.md)")), "docs/errors/README.md lists `{code}`");
        }
        // Plus one for the index page.
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), CODES.len() + 1, "a page of a code that is gone");
    }

    #[test]
    fn a_full_line_for_the_compiler_is_to_be_tried_again() {
        let full = control::Error::Rejected(setgate_sandbox::Rejected::CompileQueue { limit: 4 });
        let problem = Problem::from(full);
        assert_eq!(problem.code(), "compile_queue_full");
        assert!(problem.detail.contains("4 uploads"), "{}", problem.detail);
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }

    /// Codes are literals, so reading the sources also finds those that no test triggers.
    #[test]
    fn each_code_in_the_sources_is_listed() {
        let sources = [
            include_str!("auth.rs"),
            include_str!("coding.rs"),
            include_str!("extract.rs"),
            include_str!("framing.rs"),
            include_str!("health.rs"),
            include_str!("idempotency.rs"),
            include_str!("ingest.rs"),
            include_str!("problem.rs"),
            include_str!("router.rs"),
            include_str!("manage/filters.rs"),
            include_str!("operations/rules.rs"),
            include_str!("page.rs"),
            include_str!("manage/subscriptions.rs"),
            include_str!("../pipeline/accept.rs"),
            include_str!("../pipeline/normalize/refusal.rs"),
        ];
        let is_code = |text: &str| text.contains('_') && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        for source in sources {
            let code = source.split("#[cfg(test)]").next().unwrap_or_default();
            // Text between quotes in a line that creates a problem or maps to a code.
            for line in code.lines().filter(|line| line.contains("Problem::new(") || line.contains("=> \"")) {
                for text in line.split('"').skip(1).step_by(2).filter(|text| is_code(text)) {
                    let kind = line.trim_start().starts_with(&format!("\"{text}\" =>"));
                    assert!(kind || CODES.contains(&text), "`{text}` is missing in CODES: {}", line.trim());
                }
            }
        }
    }
}
