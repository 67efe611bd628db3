//! `/t/{tenant}/push/{source}`: signed SETs, pushed according to RFC 8935.

use std::convert::Infallible;

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use setgate_dialects::normalize::SIGNED_SET;
use setgate_domain::id::{SourceName, TenantId};
use setgate_domain::source::Source;

use super::ingest::SourcePath;
use crate::http::coding;
use crate::http::extract::{self, ReadBody};
use crate::http::openapi::{DescribeInput, Operation, OperationDraft, post};
use crate::http::problem::{Code, Problem};
use crate::http::state::SharedState;
use crate::pipeline::prove::Presented;
use crate::pipeline::sources::{ErrorCode, Push, PushRefused};

/// Names the body in error messages.
const BODY: &str = "the SET";

/// Limit for a content coding that an error repeats, in characters.
const CODING_CHARS_MAX: usize = 40;

/// See [`crate::http::routes`].
pub(super) fn operations() -> Vec<Operation> {
    vec![
        post("/t/{tenant}/push/{source}", "pushSet", "Accepts a signed SET (RFC 8935).", push)
            .description(
                "For sources with a `jws` proof. The answer is 202 only after the event is durable (fsync). If the source \
                 does not exist, the answer is the same as for a token without an accepted key. A trailing slash in the \
                 path is ignored.",
            )
            .accepts(&[SIGNED_SET], "A SET as a JWS in compact form.")
            .example(SIGNED_SET, json!("eyJhbGciOiJSUzI1NiIsImtpZCI6Ik56YkwiLCJ0eXAiOiJzZWNldmVudCtqd3QifQ.e30.c2ln"))
            .responds_empty(202, "The event is durable, or was before.")
            .responds::<SetRefusal>(400, "The SET is refused for good (RFC 8935 section 2.3).")
            .ignores_parameters()
            .errors([413, 429, 500, 503]),
    ]
}

/// Why a SET is refused (RFC 8935 section 2.3).
#[derive(Serialize, JsonSchema)]
struct SetRefusal {
    /// A code of RFC 8935 section 2.4.
    #[schemars(with = "String", extend("enum" = ErrorCode::ALL.map(ErrorCode::as_str)))]
    err: &'static str,
    /// The problem and its remedy, for people.
    description: String,
}

/// The source in the path of a request. Names that cannot exist are treated like sources that do not.
pub(super) struct PushPath(Option<(TenantId, SourceName)>);

impl FromRequestParts<SharedState> for PushPath {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &SharedState) -> Result<Self, Infallible> {
        SourcePath::from_request_parts(parts, app).await.map(|path| Self(path.named.ok()))
    }
}

impl DescribeInput for PushPath {
    fn describe(draft: &mut OperationDraft<'_>) {
        draft.in_secret_path::<TenantId>();
        draft.in_secret_path::<SourceName>();
    }
}

/// Answers 202 once the event is on disk.
pub(super) async fn push(PushPath(named): PushPath, State(app): State<SharedState>, request: Request) -> Response {
    let source = named.and_then(|(tenant, name)| app.pushes.source(&tenant, &name));
    let known: Option<&Source> = source.as_deref().map(|source| &source.value);
    if let Err(refused) = check_head(request.headers()) {
        app.pushes.refused(known, &refused);
        return answer(&refused);
    }
    // The body is read for a source that does not exist too, so that neither the answer nor its time reveals that.
    let tenant = known.map(|source| source.tenant.clone());
    let bytes_max = app.ingest.now().body_bytes_max;
    let read = extract::read(&app, &app.events, tenant.as_ref(), request, bytes_max, BODY).await;
    let ReadBody { headers, body, budget: _budget } = match read {
        Ok(read) => read,
        Err(problem) => {
            let names = known.map(|source| (&source.tenant, &source.name));
            app.acceptor.counted(names, problem.code().as_str());
            return match problem.code() {
                Code::BodyBroken => {
                    refusal(ErrorCode::InvalidRequest, "the SET is incomplete: send it again".to_owned())
                }
                _ => problem.into_response(),
            };
        }
    };
    match app.pushes.receive(Push { source, headers, body }).await {
        Ok(_) => StatusCode::ACCEPTED.into_response(),
        Err(refused) => answer(&refused),
    }
}

/// RFC 8935 section 2.1: the content type of the request.
fn check_head(headers: &HeaderMap) -> Result<(), PushRefused> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(SIGNED_SET) {
        let why = format!("the content type has to be {SIGNED_SET} (RFC 8935 section 2.1)");
        return Err(PushRefused::Malformed(why));
    }
    if coding::none(headers).is_err() {
        let given = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let given: String = given.chars().take(CODING_CHARS_MAX).collect();
        let why = format!("the `content-encoding` `{given}` is not supported here: send the token uncompressed");
        return Err(PushRefused::Malformed(why));
    }
    Ok(())
}

fn answer(refused: &PushRefused) -> Response {
    match (refused.error_code(), refused) {
        (Some(code), _) => refusal(code, refused.description()),
        (None, PushRefused::Refused(refused)) => Problem::refused(refused, Presented::Nothing).into_response(),
        (None, _) => Problem::new(Code::KeysUnavailable, refused.description()).into_response(),
    }
}

fn refusal(code: ErrorCode, description: String) -> Response {
    let body = Json(SetRefusal { err: code.as_str(), description });
    (StatusCode::BAD_REQUEST, [(header::CONTENT_LANGUAGE, "en")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_type_may_have_parameters_and_no_coding() {
        let with = |media_type: &str, coding: &str| {
            let pairs = [(header::CONTENT_TYPE, media_type), (header::CONTENT_ENCODING, coding)];
            HeaderMap::from_iter(pairs.map(|(name, value)| (name, value.parse().unwrap())))
        };
        for media_type in ["application/secevent+jwt", "Application/Secevent+JWT; charset=utf-8"] {
            assert!(check_head(&with(media_type, "identity")).is_ok(), "{media_type}");
            assert!(check_head(&with(media_type, "gzip")).is_err(), "{media_type}");
        }
        for media_type in ["application/jwt", "application/json", "", "application/secevent+jwt2"] {
            assert!(check_head(&with(media_type, "")).is_err(), "{media_type}");
        }
        assert!(check_head(&HeaderMap::new()).is_err());
    }
}
