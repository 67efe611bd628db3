//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a repeated POST with the same key gets the stored
//! answer and is not executed again. Answers are stored for a day, survive restarts, and are separate for each API key.

use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use setgate_domain::id::{KeyId, TenantId};
use setgate_domain::idempotency::IdempotencyClaim;

use super::auth;
use super::extract::{JSON_BYTES_MAX, ReadBody, path_param, read};
use super::in_progress::InProgressGuard;
use super::openapi::IDEMPOTENCY_KEY_CHARS_MAX;
use super::problem::{Code, Problem};
use super::routes::rules;
use super::state::SharedState;
use crate::control::idempotency::{ANSWERS_BYTES_PER_TENANT_MAX, ANSWERS_PER_TENANT_MAX, Standing, StoredAnswer};

/// Name of the header.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Headers that are stored with an answer.
const STORED_HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::ETAG, header::LOCATION];

/// Executes a request with an idempotency key at most once. Requests without one, and routes that do not support keys,
/// are passed through.
pub(super) async fn once(
    State(app): State<SharedState>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let has_key = request.headers().contains_key(IDEMPOTENCY_KEY);
    if !has_key || !route.is_some_and(|route| rules::takes_key(route.as_str(), request.method())) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    // An unauthorised request is refused by the route itself, before anything is read.
    let Some((caller, tenant)) = allowed(&mut parts, &app).await else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    match claimed(&app, caller, tenant, Request::from_parts(parts, body)).await {
        Ok(Claimed::New(new)) => {
            let (claim, guard, request) = *new;
            // In its own task: the answer must be stored even if the client disconnects or the request times out.
            let carried_out = tokio::spawn(async move {
                let _guard = guard;
                let answer = next.run(request).await;
                store(&app, &claim, answer).await
            });
            carried_out.await.unwrap_or_else(|error| {
                tracing::error!(%error, "request with an idempotency key failed");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            })
        }
        Ok(Claimed::Answered(answer)) => again(answer),
        Err(problem) => problem.into_response(),
    }
}

/// The API key and the tenant of a request, if it is authorised to change the tenant.
async fn allowed(parts: &mut Parts, app: &SharedState) -> Option<(KeyId, Option<TenantId>)> {
    let caller = auth::principal(parts, app).ok()?.key;
    if path_param::<TenantId, _>(parts, app).await.is_ok() {
        let auth::Tenant(tenant) = auth::Tenant::from_request_parts(parts, app).await.ok()?;
        return Some((caller, Some(tenant)));
    }
    auth::Operator::from_request_parts(parts, app).await.ok()?;
    Some((caller, None))
}

enum Claimed {
    New(Box<(IdempotencyClaim, InProgressGuard, Request)>),
    Answered(StoredAnswer),
}

async fn claimed(
    app: &SharedState,
    caller: KeyId,
    tenant: Option<TenantId>,
    request: Request,
) -> Result<Claimed, Problem> {
    let key = key_of(request.headers())?;
    let (mut parts, body) = request.into_parts();
    let (method, uri, headers) = (parts.method.clone(), parts.uri.clone(), parts.headers.clone());
    let read = read(
        app,
        &app.uploads,
        tenant.as_ref(),
        Request::from_parts(parts.clone(), body),
        JSON_BYTES_MAX,
        "the JSON body",
    );
    let ReadBody { body, budget, .. } = read.await?;
    let expected = headers.get(header::IF_MATCH).map(HeaderValue::as_bytes).unwrap_or_default();
    let path = uri.path().trim_end_matches('/');
    let request = [method.as_str().as_bytes(), path.as_bytes(), expected, &body];
    let claim = setgate_base::crypto::idempotency_claim(caller, &key, tenant, &request);
    let guard = app.in_progress.begin(&claim)?;
    match app.control.stored_answers.standing(&claim).await? {
        Standing::New => {}
        Standing::Answered(answer) => return Ok(Claimed::Answered(answer)),
        Standing::KeyReused => {
            let detail = "this `idempotency-key` was used for another request: use a new key for each request";
            return Err(Problem::new(Code::IdempotencyKeyReused, detail));
        }
        Standing::AnswerLost => {
            let detail = "this request was executed, but its response was lost because the host was stopped: check for the \
                          resource that it created; to execute the request again, use another `idempotency-key`";
            return Err(Problem::new(Code::IdempotencyAnswerLost, detail));
        }
        Standing::Full(stored) => {
            let detail = format!(
                "{} responses of {} bytes are stored for a day each; the limits are {ANSWERS_PER_TENANT_MAX} responses and \
                 {ANSWERS_BYTES_PER_TENANT_MAX} bytes: retry without `idempotency-key`, or later; nothing was changed",
                stored.count, stored.bytes
            );
            return Err(Problem::new(Code::IdempotencyAnswersFull, detail));
        }
    }
    // The route takes memory budget for the body again.
    drop(budget);
    parts.extensions.insert(claim.clone());
    Ok(Claimed::New(Box::new((claim, guard, Request::from_parts(parts, Body::from(body))))))
}

/// The key of a request: a string of RFC 8941, or the same without quotes, as many clients send it.
fn key_of(headers: &HeaderMap) -> Result<String, Problem> {
    let invalid = || {
        let detail = format!(
            "`idempotency-key` must be one string of 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters, such as a UUID, with \
             or without quotes"
        );
        Problem::new(Code::IdempotencyKeyInvalid, detail)
    };
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(given), None) = (given.next(), given.next()) else { return Err(invalid()) };
    let given = given.to_str().map_err(|_| invalid())?.trim();
    let key = match given.strip_prefix('"') {
        None => Some(given.to_owned()).filter(|key| !key.contains(['"', ' ', ','])),
        Some(quoted) => quoted.strip_suffix('"').and_then(unescaped),
    };
    key.filter(|key| (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len()) && !key.contains('\t')).ok_or_else(invalid)
}

/// Unescapes a quoted string: `\` is allowed only before a quote or another `\` (RFC 8941 section 3.3.3).
fn unescaped(quoted: &str) -> Option<String> {
    let (mut text, mut rest) = (String::new(), quoted.chars());
    while let Some(character) = rest.next() {
        match character {
            '"' => return None,
            '\\' => text.push(rest.next().filter(|next| matches!(next, '"' | '\\'))?),
            other => text.push(other),
        }
    }
    Some(text)
}

/// Stores the answer before it is sent. If that fails, the client still receives it.
async fn store(app: &SharedState, claim: &IdempotencyClaim, answer: Response) -> Response {
    let (head, body) = answer.into_parts();
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = STORED_HEADERS
        .iter()
        .filter_map(|name| Some((name.as_str().to_owned(), head.headers.get(name)?.to_str().ok()?.to_owned())));
    let stored = StoredAnswer {
        status: head.status.as_u16(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    if let Err(error) = app.control.stored_answers.store(claim, &stored).await {
        tracing::warn!(%error, "response of a request with an idempotency key could not be stored");
    }
    Response::from_parts(head, Body::from(body))
}

fn again(answer: StoredAnswer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[&'static str]) -> Result<String, Code> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_static(value));
        }
        key_of(&headers).map_err(|problem| problem.code())
    }

    #[test]
    fn a_key_is_one_string_with_or_without_quotes() {
        for (given, read) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("\"8e03978e\"", "8e03978e"),
            (r#""a \"b\" \\ c""#, r#"a "b" \ c"#),
            ("  plain  ", "plain"),
        ] {
            assert_eq!(key(&[given]).as_deref(), Ok(read), "{given}");
        }
        let long = "a".repeat(IDEMPOTENCY_KEY_CHARS_MAX + 1).leak();
        for bad in ["", "\"\"", "\"", "\"a", "a\"", "a, b", "a b", "\"a\"b\"", r#""a\b""#, "\"a\tb\"", long] {
            assert_eq!(key(&[bad]), Err(Code::IdempotencyKeyInvalid), "{bad}");
        }
        assert_eq!(key(&["a", "b"]), Err(Code::IdempotencyKeyInvalid));
        assert!(key(&["a".repeat(IDEMPOTENCY_KEY_CHARS_MAX).leak()]).is_ok());
    }
}
