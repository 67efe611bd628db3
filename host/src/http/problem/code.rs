//! The stable codes of problems. Each code has a page in `docs/errors`.

use http::StatusCode;
use serde::{Serialize, Serializer};

/// `Retry-After` is not sent.
const NEVER: Option<u32> = None;
/// `Retry-After` (seconds) if a limit is reached for a short time.
const SOON: Option<u32> = Some(2);
/// `Retry-After` (seconds) if something has to be fetched from elsewhere.
const WHEN_FETCHED: Option<u32> = Some(5);
/// `Retry-After` (seconds) if the host is short of disk space, which takes longer to resolve.
const WHEN_SPACE_IS_FREE: Option<u32> = Some(30);

/// Prefix of each problem's `type`, followed by its code.
const PAGE_BASE: &str = "https://schemas.setgate.dev/errors/";

/// Defines [`Code`] from one table: the variant, its text, its status, its `Retry-After` and its title.
macro_rules! codes {
    ($($variant:ident = $text:literal, $status:ident, $retry_after:ident, $title:literal;)*) => {
        /// The code of a problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($variant,)*
        }

        impl Code {
            /// All codes, sorted by their texts.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The text on the wire. It is stable.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// The HTTP status. [`Code::Busy`] also occurs with 503.
            pub const fn status(self) -> StatusCode {
                match self {
                    $(Self::$variant => StatusCode::$status,)*
                }
            }

            /// `Retry-After` in seconds.
            pub const fn retry_after_s(self) -> Option<u32> {
                match self {
                    $(Self::$variant => $retry_after,)*
                }
            }

            /// A summary for people.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title,)*
                }
            }
        }
    };
}

codes! {
    BacklogFull = "backlog_full", TOO_MANY_REQUESTS, SOON, "Too many deliveries are pending";
    BacktestRunning = "backtest_running", TOO_MANY_REQUESTS, SOON, "A backtest is in progress";
    BadClaim = "bad_claim", BAD_REQUEST, NEVER, "A claim is invalid";
    BadCursor = "bad_cursor", BAD_REQUEST, NEVER, "The cursor is invalid";
    BadKey = "bad_key", UNAUTHORIZED, NEVER, "The API key is missing or invalid";
    BadSignature = "bad_signature", UNAUTHORIZED, NEVER, "The signature is missing or invalid";
    BadToken = "bad_token", UNAUTHORIZED, NEVER, "The bearer token is invalid";
    BodyBroken = "body_broken", BAD_REQUEST, NEVER, "The request body is incomplete";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, NEVER, "The request body is too large";
    BodyTooSlow = "body_too_slow", REQUEST_TIMEOUT, NEVER, "The request body arrived too slowly";
    Busy = "busy", TOO_MANY_REQUESTS, SOON, "A shared limit is reached";
    CodingBroken = "coding_broken", BAD_REQUEST, NEVER, "The compressed body cannot be decoded";
    CompileQueueFull = "compile_queue_full", TOO_MANY_REQUESTS, SOON, "The compile queue is full";
    Conflict = "conflict", CONFLICT, NEVER, "The request conflicts with the current state";
    DiskLow = "disk_low", SERVICE_UNAVAILABLE, WHEN_SPACE_IS_FREE, "The disk is nearly full";
    DuplicateKey = "duplicate_key", BAD_REQUEST, NEVER, "A JSON object has a duplicate member";
    EndpointNotVerified = "endpoint_not_verified", UNPROCESSABLE_ENTITY, NEVER, "The endpoint is not verified";
    FilterCompileLimit = "filter_compile_limit", UNPROCESSABLE_ENTITY, NEVER, "Compiling the filter exceeds a limit";
    FilterCoreModule = "filter_core_module", UNPROCESSABLE_ENTITY, NEVER, "The upload is a core module";
    FilterImport = "filter_import", UNPROCESSABLE_ENTITY, NEVER, "The filter has an unsupported import";
    FilterInvalid = "filter_invalid", UNPROCESSABLE_ENTITY, NEVER, "The filter is not a valid component";
    FilterNoTransform = "filter_no_transform", UNPROCESSABLE_ENTITY, NEVER, "The component is not a filter";
    FilterNotCompiled = "filter_not_compiled", SERVICE_UNAVAILABLE, SOON, "The filter could not be compiled";
    FilterNotWasm = "filter_not_wasm", UNPROCESSABLE_ENTITY, NEVER, "The upload is not WebAssembly";
    FilterPrecompiled = "filter_precompiled", UNPROCESSABLE_ENTITY, NEVER, "The upload is precompiled";
    FilterStart = "filter_start", UNPROCESSABLE_ENTITY, NEVER, "The filter cannot be started";
    FilterTooComplex = "filter_too_complex", UNPROCESSABLE_ENTITY, NEVER, "The filter is too complex";
    FilterTooLarge = "filter_too_large", PAYLOAD_TOO_LARGE, NEVER, "The filter is too large";
    FilterWrongTypes = "filter_wrong_types", UNPROCESSABLE_ENTITY, NEVER, "The filter has the wrong types";
    FilterWrongVersion = "filter_wrong_version", UNPROCESSABLE_ENTITY, NEVER, "The filter targets an unsupported version";
    Forbidden = "forbidden", FORBIDDEN, NEVER, "The API key does not permit this request";
    IdempotencyAnswerLost = "idempotency_answer_lost", CONFLICT, NEVER, "The response of the first request is lost";
    IdempotencyAnswersFull = "idempotency_answers_full", TOO_MANY_REQUESTS, NEVER, "Too many responses are stored";
    IdempotencyKeyInProgress = "idempotency_key_in_progress", CONFLICT, SOON, "A request with this idempotency key is in progress";
    IdempotencyKeyInvalid = "idempotency_key_invalid", BAD_REQUEST, NEVER, "The idempotency key is invalid";
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, NEVER, "The idempotency key belongs to another request";
    InvalidBody = "invalid_body", BAD_REQUEST, NEVER, "The request body is invalid";
    InvalidField = "invalid_field", UNPROCESSABLE_ENTITY, NEVER, "A field has an invalid value";
    InvalidQuery = "invalid_query", BAD_REQUEST, NEVER, "The query string is invalid";
    IssuerNameUsed = "issuer_name_used", CONFLICT, NEVER, "An earlier tenant of this name signed events";
    IssuerNotAllowed = "issuer_not_allowed", BAD_REQUEST, NEVER, "The issuer is not allowed";
    JtiConflict = "jti_conflict", CONFLICT, NEVER, "The event id is already in use";
    KeysUnavailable = "keys_unavailable", SERVICE_UNAVAILABLE, WHEN_FETCHED, "The keys of the issuer are not available";
    LedgerDamaged = "ledger_damaged", INTERNAL_SERVER_ERROR, NEVER, "Stored data is damaged";
    LedgerFull = "ledger_full", SERVICE_UNAVAILABLE, WHEN_SPACE_IS_FREE, "The ledger is full";
    LoneSurrogate = "lone_surrogate", BAD_REQUEST, NEVER, "A string has an unpaired surrogate";
    MalformedJson = "malformed_json", BAD_REQUEST, NEVER, "The body is not JSON";
    MissingClaim = "missing_claim", BAD_REQUEST, NEVER, "A claim is missing";
    NoMethod = "no_method", METHOD_NOT_ALLOWED, NEVER, "The method is not allowed";
    NoRoute = "no_route", NOT_FOUND, NEVER, "There is no such route";
    NotAnObject = "not_an_object", BAD_REQUEST, NEVER, "The body is not a JSON object";
    NotFound = "not_found", NOT_FOUND, NEVER, "There is no such resource";
    NotReady = "not_ready", SERVICE_UNAVAILABLE, NEVER, "The host is not ready";
    NotStored = "not_stored", SERVICE_UNAVAILABLE, SOON, "The ledger is unavailable";
    NotUtf8 = "not_utf8", BAD_REQUEST, NEVER, "The body is not UTF-8";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, NEVER, "The request timed out";
    SecretUnreadable = "secret_unreadable", INTERNAL_SERVER_ERROR, NEVER, "A stored secret cannot be decrypted";
    StorageFull = "storage_full", TOO_MANY_REQUESTS, SOON, "The storage quota is used up";
    TooDeep = "too_deep", BAD_REQUEST, NEVER, "The JSON is nested too deeply";
    TooLarge = "too_large", BAD_REQUEST, NEVER, "The JSON is too large";
    TooManyBytes = "too_many_bytes", TOO_MANY_REQUESTS, SOON, "The ingest rate is exceeded";
    TooOften = "too_often", TOO_MANY_REQUESTS, SOON, "Too many tests, verifications or issuer keys";
    UnexpectedVerification = "unexpected_verification", NOT_FOUND, NEVER, "The hub's verification is not expected";
    UnknownSource = "unknown_source", NOT_FOUND, NEVER, "The path names no source";
    UnsupportedCoding = "unsupported_coding", UNSUPPORTED_MEDIA_TYPE, NEVER, "The content coding is not supported";
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, NEVER, "The content type is not supported";
    UnsupportedTransferCoding = "unsupported_transfer_coding", NOT_IMPLEMENTED, NEVER, "The transfer coding is not supported";
    VersionChanged = "version_changed", PRECONDITION_FAILED, NEVER, "The version does not match";
    WrongForm = "wrong_form", BAD_REQUEST, NEVER, "The body has the form of another product";
}

impl Code {
    /// The URI that identifies the kind of problem (RFC 9457 section 3.1.1).
    pub fn page(self) -> String {
        format!("{PAGE_BASE}{}", self.as_str())
    }

    /// The texts of all codes, for the OpenAPI document.
    pub fn texts() -> Vec<&'static str> {
        Self::ALL.iter().map(|code| code.as_str()).collect()
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn each_code_has_a_page_with_its_status() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
        let index = std::fs::read_to_string(folder.join("README.md")).unwrap();
        for code in Code::ALL {
            let (text, status) = (code.as_str(), code.status().as_u16());
            let page = std::fs::read_to_string(folder.join(format!("{text}.md"))).unwrap_or_default();
            let begin = format!("# {text}\n\nStatus {status}");
            assert!(page.starts_with(&begin), "docs/errors/{text}.md must begin with {begin:?}");
            let row = format!("| [`{text}`]({text}.md) | {status}");
            assert!(index.contains(&row), "docs/errors/README.md must have the row {row}");
        }
    }

    #[test]
    fn each_page_belongs_to_a_code() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
        let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let pages: BTreeSet<_> = names.filter(|name| name != "README.md").collect();
        let codes: BTreeSet<_> = Code::texts().into_iter().map(|text| format!("{text}.md")).collect();
        assert_eq!(pages, codes);
    }

    #[test]
    fn titles_are_distinct() {
        let titles: BTreeSet<_> = Code::ALL.iter().map(|code| code.title()).collect();
        assert_eq!(titles.len(), Code::ALL.len());
        assert!(titles.iter().all(|title| title.starts_with(char::is_uppercase) && !title.ends_with('.')));
    }
}
