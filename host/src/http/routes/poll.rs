//! `/t/{tenant}/poll/{subscription}`: signed SETs for receivers that poll (RFC 8936).

use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};
use setgate_base::authenticate::bearer_token;
use setgate_base::crypto;
use setgate_domain::id::{SubscriptionId, SubscriptionRef, TenantId};

use crate::http::extract::{self, ReadBody};
use crate::http::openapi::{DescribeInput, Operation, OperationDraft, post};
use crate::http::problem::{Code, Problem};
use crate::http::responses::ChargedTo;
use crate::http::state::SharedState;
use crate::pipeline::poll::{PollAnswer, PollError, PollRequest, PolledSubscription};

/// Names the body in error messages.
const BODY: &str = "the poll";
/// Maximum size (bytes) of a poll: acknowledgements of ten thousand SETs.
const POLL_BYTES_MAX: usize = 1 << 20;
/// Longest time in milliseconds for which a poll without a SET is held. Half of `listen.request_ms_max` if that is less.
const HOLD_MS_MAX: u64 = 25_000;

/// See [`crate::http::routes`].
pub(super) fn operations() -> Vec<Operation> {
    vec![
        post("/t/{tenant}/poll/{subscription}", "pollSets", "Fetches signed SETs (RFC 8936).", poll)
            .description(
                "For receivers of subscriptions with `poll`. Acknowledgements and errors are applied before SETs are chosen; unknown \
                 ones are ignored. A SET that is not acknowledged is returned again after 60 s, or at once if \
                 `returnImmediately` is set and there is no other. A poll that is held ends when a later one of the same \
                 subscription begins.",
            )
            .accepts(&["application/json"], "A poll. An empty body is a poll without members.")
            .example("application/json", example())
            .responds::<PollAnswer>(200, "The SETs.")
            .ignores_parameters()
            .errors([400, 408, 413, 415, 429, 503]),
    ]
}

/// RFC 8936 section 2.4.
fn example() -> Value {
    json!({"maxEvents": 10, "returnImmediately": true, "ack": ["dlv_01"],
        "setErrs": {"dlv_02": {"err": "invalid_key", "description": "the key is not in the JWKS"}}})
}

/// The subscription in the path of a request, after its bearer token was checked.
pub(super) struct Receiver(PolledSubscription);

impl FromRequestParts<SharedState> for Receiver {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &SharedState) -> Result<Self, Response> {
        let named = named(parts, app).await;
        let given = bearer_token(&parts.headers);
        let found = named.ok().and_then(|(tenant, id)| app.poller.authorise(tenant, id, &digest(given)));
        found.map(Self).ok_or_else(|| unauthorised(&parts.headers))
    }
}

async fn named(parts: &mut Parts, app: &SharedState) -> Result<(TenantId, SubscriptionId), String> {
    let tenant = extract::named(parts, app).await?;
    match extract::named(parts, app).await? {
        SubscriptionRef::Id(id) => Ok((tenant, id)),
        SubscriptionRef::Name(name) => Err(format!("`{name}` is not the id of a subscription")),
    }
}

fn digest(token: Option<&str>) -> [u8; 32] {
    crypto::sha256(token.unwrap_or_default().as_bytes())
}

/// RFC 6750 section 3: without a token, the challenge has no error code. The answer is the same if there is no such
/// subscription, so that names cannot be probed.
fn unauthorised(headers: &HeaderMap) -> Response {
    let is_given = headers.contains_key(header::AUTHORIZATION);
    let (detail, challenge) = if is_given {
        (
            "the subscription does not exist, or the token is not one of its receiver's",
            r#"Bearer realm="poll", error="invalid_token""#,
        )
    } else {
        ("send the receiver's token as `Authorization: Bearer sgp_...`", r#"Bearer realm="poll""#)
    };
    let mut response = Problem::new(Code::BadToken, detail).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

impl DescribeInput for Receiver {
    fn describe(draft: &mut OperationDraft<'_>) {
        draft.in_path::<TenantId>();
        draft.in_path::<SubscriptionRef>();
        draft.needs_poll_token();
    }
}

/// Answers with the next SETs.
pub(super) async fn poll(
    Receiver(subscription): Receiver,
    State(app): State<SharedState>,
    request: Request,
) -> Result<Response, Problem> {
    let read = extract::read(&app, &app.uploads, Some(&subscription.tenant), request, POLL_BYTES_MAX, BODY).await?;
    let ReadBody { headers, body, budget } = read;
    if !body.is_empty() {
        extract::check_text("application/json", &headers)?;
    }
    let asked = PollRequest::parse(&body).map_err(|why| {
        Problem::new(Code::InvalidBody, format!("the poll is not one of RFC 8936 section 2.2: {why}"))
    })?;
    // Held polls must not use up the memory of requests.
    drop((body, budget));
    let hold = Duration::from_millis(HOLD_MS_MAX.min(app.listen.now().request_ms_max / 2));
    let _held = app.polls.open(&subscription.tenant)?;
    let answer = tokio::select! {
        answer = app.poller.poll(&subscription, asked, hold) => answer,
        () = app.stopping.cancelled() => Ok(PollAnswer::default()),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(PollError::Unauthorised) => return Ok(unauthorised(&headers)),
        Err(PollError::Ledger(error)) => return Err(Problem::ledger(&error)),
    };
    let charged = Extension(ChargedTo(subscription.tenant));
    Ok(([(header::CACHE_CONTROL, "no-store")], charged, Json(answer)).into_response())
}
