//! Maps errors to answers: RFC 9457 problem details with a stable `code`.

mod code;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use setgate_dialects::normalize::NormalizeError;
use setgate_domain::json::JsonError;
use setgate_ledger::Shortage;
use setgate_sandbox::UploadError;

pub use code::Code;

use crate::control;
use crate::pipeline::decode::CodingFault;
use crate::pipeline::prove::{Presented, Unproven};
use crate::pipeline::refused::Refused;

/// An error response.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: Code,
    detail: String,
    accept_encoding: Option<&'static str>,
}

/// Problem details of a failed request (RFC 9457).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Body<'a> {
    /// Identifies the kind of problem: a fixed prefix followed by the code.
    #[schemars(extend("format" = "uri"))]
    r#type: String,
    /// Summary of the kind of problem, for people.
    title: &'a str,
    /// The HTTP status.
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    /// Stable identifier of the kind of problem.
    #[schemars(with = "String", extend("enum" = Code::texts()))]
    code: Code,
    /// The error, its location, and how to fix it.
    detail: &'a str,
}

impl Problem {
    /// A problem with its code, and a message that states the error, its location, and how to fix it.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { status: code.status(), code, detail: detail.into(), accept_encoding: None }
    }

    /// With the content codings that would be accepted (RFC 9110 section 15.5.16).
    pub(super) fn accepting(self, codings: &'static str) -> Self {
        Self { accept_encoding: Some(codings), ..self }
    }

    /// For a path that does not exist, or not on this listener.
    pub(super) fn no_route() -> Self {
        let detail =
            "there is no such route: events go to /ingest/{tenant}/{source}, management to /api/v1/tenants/...";
        Self::new(Code::NoRoute, detail)
    }

    /// A limit of the whole host is reached, not the share of one tenant or client.
    pub(super) fn host_busy(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, ..Self::new(Code::Busy, detail) }
    }

    /// Details of storage errors go to the operator's log and not to tenants. They are logged here unless the ledger
    /// has logged them.
    pub(super) fn ledger(error: &setgate_ledger::Error) -> Self {
        if error.is_damage() {
            tracing::error!(%error, "ledger is damaged: stored data cannot be read");
            let detail = "the requested data is damaged on the host's disk: the error is in the operator's log; restore a backup";
            return Self::new(Code::LedgerDamaged, detail);
        }
        if error.is_logged() {
            tracing::debug!(%error, "ledger request failed");
        } else {
            tracing::error!(%error, "ledger request failed");
        }
        Self::new(Code::NotStored, "the ledger is unavailable and nothing was stored: retry later")
    }

    pub fn code(&self) -> Code {
        self.code
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: self.code.page(),
            title: self.code.title(),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.code.retry_after_s() {
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
            Presented::Nothing => (Code::BadSignature, "the request has no signature, key or token".to_owned()),
            Presented::Signature(header) => {
                (Code::BadSignature, format!("the signature in `{header}` is not accepted here"))
            }
            Presented::Key => (Code::BadKey, "this key is not accepted here".to_owned()),
            Presented::Token => (Code::BadToken, "this `Authorization` is not accepted here".to_owned()),
        };
        let detail = format!(
            "{given}: the source does not exist, or the proof is not one of its `proofs`; check that the path is the source's \
             `ingest_path`, then the header, the secret, the sender's clock, and that nothing changes the body in transit \
             (the host's log and `setgate_ingest_total` have the exact reason)"
        );
        Self::new(code, detail)
    }

    /// For a refused ingest request with this kind of proof.
    pub(super) fn refused(refused: &Refused, presented: Presented) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Unproven(Unproven::SecretUnreadable) => {
                tracing::error!(%detail, "ingest request failed");
                Self::new(Code::SecretUnreadable, detail)
            }
            Refused::Unproven(Unproven::KeyScope) => Self::new(Code::Forbidden, detail),
            Refused::Unproven(_) => Self::unproven(presented),
            Refused::NotAnEvent(refusal) => Self::new(refusal.into(), detail),
            Refused::Coding(CodingFault::Broken { .. }) => Self::new(Code::CodingBroken, detail),
            Refused::Coding(CodingFault::TooLarge { .. }) => Self::new(Code::BodyTooLarge, detail),
            Refused::Conflict(_) => Self::new(Code::JtiConflict, detail),
            Refused::Backlog { .. } => Self::new(Code::BacklogFull, detail),
            Refused::Storage { .. } => Self::new(Code::StorageFull, detail),
            Refused::Rate { .. } => Self::new(Code::TooManyBytes, detail),
            Refused::Flood { .. } => Self::new(Code::Busy, detail),
            Refused::Short(shortage) => Self::new(shortage.into(), detail),
            Refused::Ledger(error) => Self::ledger(error),
        }
    }
}

impl From<&NormalizeError> for Code {
    fn from(refusal: &NormalizeError) -> Self {
        match refusal {
            NormalizeError::UnsupportedMediaType { .. } => Self::UnsupportedMediaType,
            NormalizeError::Json(fault) => match fault {
                JsonError::NotUtf8 { .. } => Self::NotUtf8,
                JsonError::Malformed { .. } => Self::MalformedJson,
                JsonError::LoneSurrogate { .. } => Self::LoneSurrogate,
                JsonError::DuplicateKey { .. } => Self::DuplicateKey,
                JsonError::TooDeep { .. } => Self::TooDeep,
                JsonError::TooLarge { .. } => Self::TooLarge,
                JsonError::NotAnObject => Self::NotAnObject,
            },
            NormalizeError::MissingClaim { .. } => Self::MissingClaim,
            NormalizeError::BadClaim { .. } => Self::BadClaim,
            NormalizeError::WrongForm { .. } => Self::WrongForm,
            NormalizeError::IssuerNotAllowed { .. } => Self::IssuerNotAllowed,
        }
    }
}

impl From<&Shortage> for Code {
    fn from(shortage: &Shortage) -> Self {
        match shortage {
            Shortage::Disk { .. } | Shortage::Share { .. } => Self::DiskLow,
            Shortage::Ledger { .. } => Self::LedgerFull,
        }
    }
}

impl From<&UploadError> for Code {
    fn from(rejected: &UploadError) -> Self {
        match rejected {
            UploadError::CompileQueue { .. } => Self::CompileQueueFull,
            UploadError::TooLarge { .. } => Self::FilterTooLarge,
            UploadError::Precompiled => Self::FilterPrecompiled,
            UploadError::CoreModule => Self::FilterCoreModule,
            UploadError::NotWasm { .. } => Self::FilterNotWasm,
            UploadError::Structure { .. } => Self::FilterTooComplex,
            UploadError::NoTransform { .. } => Self::FilterNoTransform,
            UploadError::WrongVersion { .. } => Self::FilterWrongVersion,
            UploadError::WrongTypes { .. } => Self::FilterWrongTypes,
            UploadError::Import { .. } => Self::FilterImport,
            UploadError::CompileLimit { .. } => Self::FilterCompileLimit,
            UploadError::Invalid { .. } => Self::FilterInvalid,
            UploadError::Start(_) if rejected.is_host_error() => Self::FilterNotCompiled,
            UploadError::Start(_) => Self::FilterStart,
            UploadError::Host { .. } => Self::FilterNotCompiled,
        }
    }
}

impl From<control::Error> for Problem {
    fn from(error: control::Error) -> Self {
        let code = match &error {
            control::Error::NotFound(_) => Code::NotFound,
            control::Error::Conflict(_) | control::Error::NameTaken(_) => Code::Conflict,
            control::Error::IssuerNameUsed(_) => Code::IssuerNameUsed,
            control::Error::Version { .. } => Code::VersionChanged,
            control::Error::Invalid { .. } => Code::InvalidField,
            control::Error::Rejected(rejected) => rejected.into(),
            control::Error::BacktestRunning => Code::BacktestRunning,
            control::Error::Busy(_) => Code::Busy,
            control::Error::TooOften { .. } => Code::TooOften,
            control::Error::NotVerified { .. } => Code::EndpointNotVerified,
            control::Error::BadCursor => Code::BadCursor,
            control::Error::StorageFull { .. } => Code::StorageFull,
            control::Error::Short(shortage) => shortage.into(),
            control::Error::Ledger(error) => return Self::ledger(error),
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_compile_queue_is_retryable() {
        let full = control::Error::Rejected(UploadError::CompileQueue { limit: 4 });
        let problem = Problem::from(full);
        assert_eq!(problem.code(), Code::CompileQueueFull);
        assert!(problem.detail.contains("4 uploads"), "{}", problem.detail);
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }

    /// The pipeline labels its metrics with the texts of the codes.
    #[test]
    fn refusals_have_the_same_code_in_metrics_and_responses() {
        let text = String::new;
        let refusals = [
            NormalizeError::UnsupportedMediaType { given: text(), hint: text() },
            NormalizeError::Json(JsonError::NotAnObject),
            NormalizeError::MissingClaim { claim: text(), hint: "" },
            NormalizeError::BadClaim { claim: text(), why: text() },
            NormalizeError::IssuerNotAllowed { issuer: text(), source_name: text() },
        ];
        for refusal in refusals {
            assert_eq!(Code::from(&refusal).as_str(), refusal.code());
        }
        let shortages = [Shortage::Ledger { used: 1, max: 1 }];
        for refused in shortages.map(Refused::Short) {
            assert_eq!(Problem::refused(&refused, Presented::Nothing).code().as_str(), refused.code());
        }
        let tenant: setgate_domain::id::TenantId = "acme".parse().unwrap();
        let refused = [
            Refused::Unproven(Unproven::SecretUnreadable),
            Refused::Unproven(Unproven::KeyScope),
            Refused::Unproven(Unproven::Unsigned),
            Refused::Backlog { tenant: tenant.clone(), backlog: 1, limit: 1 },
            Refused::Storage { tenant: tenant.clone(), stored: 1, limit: 1 },
            Refused::Rate { tenant: tenant.clone(), limit: 1 },
            Refused::Flood { tenant, limit: 1 },
        ];
        for refused in refused {
            assert_eq!(Problem::refused(&refused, Presented::Nothing).code().as_str(), refused.code());
        }
    }
}
