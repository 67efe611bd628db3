//! `/ingest/{tenant}/{source}`: ingest of events, and WebSub verification for sources that expect it.

use std::convert::Infallible;

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use setgate_dialects::normalize::{SIGNED_SET, check_media_type};
use setgate_domain::id::{EventId, SourceName, TenantId};
use tracing::info;

use crate::http::coding;
use crate::http::extract::{self, Query, ReadBody};
use crate::http::openapi::{DescribeInput, Operation, OperationDraft, get, post};
use crate::http::problem::{Code, Problem};
use crate::http::state::SharedState;
use crate::pipeline::decode::{Coding, decoded_bytes_max};
use crate::pipeline::prove::{Head, Inbound, Presented};

/// Names the body in error messages.
const BODY: &str = "the event";
/// Maximum size (bytes) of a hub's challenge, because it is echoed to an unauthenticated client.
const CHALLENGE_BYTES_MAX: usize = 1024;

/// See [`crate::http::routes`].
pub(super) fn operations() -> Vec<Operation> {
    vec![
        post("/ingest/{tenant}/{source}", "ingestEvent", "Accepts an event.", event)
            .description(
                "The body has the `form` of the source. The answer is 202 only after the event is durable (fsync). If the source does \
                 not exist, the answer is the same as for an invalid proof. A trailing slash in the path is ignored.",
            )
            // A single type, because some client generators produce broken code for several.
            .accepts(
                &["application/json"],
                "The event as its product sends it. `application/secevent+json` is accepted too.",
            )
            .example("application/json", example())
            .responds::<Accepted>(202, "The event is durable.")
            .ignores_parameters()
            .errors([400, 401, 404, 409, 413, 415, 429, 500, 503]),
        get(
            "/ingest/{tenant}/{source}",
            "verifyTopic",
            "Confirms a hub's verification of intent (W3C WebSub section 5.3).",
            verification,
        )
        .ignores_parameters()
        .responds_text(200, "text/plain", "The challenge. Empty if the hub denied the topic.")
        .errors([404]),
    ]
}

/// A SET as sent to a source of the form `set` (OpenID CAEP 1.0, section 3.1).
fn example() -> Value {
    json!({
        "iss": "https://idp.example.com/",
        "jti": "24c63fb56e5a2d77a6b512616ca9fa24",
        "iat": 1_615_305_159,
        "sub_id": {"format": "email", "email": "jane@example.com"},
        "events": {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {"event_timestamp": 1_615_304_991}},
    })
}

/// Answer for an event that is on disk.
#[derive(Serialize, JsonSchema)]
struct Accepted {
    /// Id of the event.
    event: EventId,
    /// Whether the event was accepted before. A duplicate is not delivered again.
    duplicate: bool,
}

/// The source in the path of a request.
pub(super) struct SourcePath {
    /// The error message if the path cannot name any source.
    pub(super) named: Result<(TenantId, SourceName), String>,
}

impl FromRequestParts<SharedState> for SourcePath {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &SharedState) -> Result<Self, Infallible> {
        let (tenant, source) = (extract::named(parts, app).await, extract::named(parts, app).await);
        Ok(Self { named: tenant.and_then(|tenant| Ok((tenant, source?))) })
    }
}

impl DescribeInput for SourcePath {
    fn describe(draft: &mut OperationDraft<'_>) {
        draft.in_path::<TenantId>();
        draft.in_path::<SourceName>();
        // A hub that verifies a topic sends no proof.
        if draft.method() == Method::POST {
            draft.needs_proof();
        }
    }
}

/// Answers 202 once the event is on disk.
pub(super) async fn event(
    SourcePath { named }: SourcePath,
    State(app): State<SharedState>,
    request: Request,
) -> Result<Response, Problem> {
    let (tenant, source) = named.map_err(|why| {
        app.acceptor.counted(None, "unknown_source");
        Problem::new(Code::UnknownSource, why)
    })?;
    refuse_signed(request.headers()).inspect_err(|problem| app.acceptor.counted(None, problem.code().as_str()))?;
    let presented = Presented::of(request.headers());
    let coding = coding::of_event(request.headers()).inspect_err(|problem| {
        // The path names no valid source, so the refusal is counted without one.
        app.acceptor.counted(None, problem.code().as_str());
    })?;
    let head = app.prover.prove_head(&tenant, &source, request.headers());
    let head = head.map_err(|why| {
        let refused = app.acceptor.refuse_unproven(&tenant, &source, why);
        Problem::refused(&refused, presented)
    })?;
    let bytes_max = app.ingest.now().body_bytes_max;
    let known = !matches!(head, Head::Signed { known: false });
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    check_media_type(media_type).map_err(|refusal| {
        // The same answer for a source that does not exist.
        app.acceptor.counted(known.then_some((&tenant, &source)), refusal.code());
        Problem::refused(&refusal.into(), presented)
    })?;
    let read = if known {
        let read = extract::read(&app, &app.events, Some(&tenant), request, bytes_max, BODY).await;
        read.map(|ReadBody { headers, body, budget }| (headers, body, Some(budget)))
    } else {
        // Read like the body for an existing source, so that neither the answer nor its time reveals that there is
        // none.
        extract::discard(request, bytes_max, BODY).await.map(|headers| (headers, Bytes::new(), None))
    };
    let (headers, body, _budget) = match read {
        Ok(read) => read,
        Err(problem) => {
            app.acceptor.counted(known.then_some((&tenant, &source)), problem.code().as_str());
            return Err(problem);
        }
    };
    let _decoded_budget = match coding {
        Coding::Gzip if known => Some(app.events.take(Some(&tenant), decoded_bytes_max(body.len(), bytes_max))?),
        Coding::Gzip | Coding::Identity => None,
    };
    let taken = app.acceptor.ingest(Inbound { tenant, source, head, headers, body, coding }).await;
    let receipt = taken.map_err(|refused| Problem::refused(&refused, presented))?;
    let accepted = Accepted { event: receipt.event, duplicate: receipt.duplicate };
    Ok((StatusCode::ACCEPTED, Json(accepted)).into_response())
}

/// Refuses signed SETs, for any source: they have a route of their own.
fn refuse_signed(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(SIGNED_SET) {
        return Ok(());
    }
    match check_media_type(Some(media_type)) {
        Ok(()) => Ok(()),
        Err(refusal) => Err(Problem::new((&refusal).into(), refusal.to_string())),
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Verification {
    /// `subscribe`, `unsubscribe` or `denied`; anything else is refused.
    #[serde(rename = "hub.mode")]
    mode: Option<String>,
    /// The topic. A subscription is confirmed if the source lists the topic, its end if the source does not.
    #[serde(rename = "hub.topic")]
    topic: Option<String>,
    /// The challenge to echo, 1 to 1024 bytes.
    #[serde(rename = "hub.challenge")]
    challenge: Option<String>,
    /// The hub's reason for a denial.
    #[serde(rename = "hub.reason")]
    reason: Option<String>,
}

/// W3C WebSub section 5.3: a hub verifies a change of the subscription; the challenge is echoed to confirm it.
///
/// A subscription is confirmed if the source lists its topic. An unsubscription is confirmed if the source does not
/// list it, which includes removed and unknown sources, because a hub that gets no confirmation keeps sending. A denial
/// is always acknowledged, and logged if the source lists the topic.
pub(super) async fn verification(
    SourcePath { named }: SourcePath,
    State(app): State<SharedState>,
    Query(asked): Query<Verification>,
) -> Result<Response, Problem> {
    let topic = asked.topic.as_deref().unwrap_or_default();
    let listed = named.as_ref().is_ok_and(|(tenant, source)| app.control.sources.expects_topic(tenant, source, topic));
    let challenge = asked.challenge.filter(|challenge| (1..=CHALLENGE_BYTES_MAX).contains(&challenge.len()));
    match (asked.mode.as_deref(), challenge) {
        _ if topic.is_empty() => {}
        (Some(mode @ ("subscribe" | "unsubscribe")), Some(challenge)) if listed == (mode == "subscribe") => {
            if let (true, Ok((tenant, source))) = (listed, &named) {
                info!(%tenant, %source, topic, "WebSub subscription confirmed");
            }
            let plain =
                [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
            return Ok((StatusCode::OK, plain, challenge).into_response());
        }
        (Some("denied"), _) => {
            if let (true, Ok((tenant, source))) = (listed, &named) {
                let reason = asked.reason.as_deref();
                tracing::warn!(%tenant, %source, topic, reason, "WebSub subscription denied by the hub");
            }
            return Ok(StatusCode::OK.into_response());
        }
        _ => {}
    }
    let detail = format!(
        "this WebSub verification is not expected: to subscribe, add the topic to the source's `websub_topics`; to \
         unsubscribe, remove it; the challenge must have 1 to {CHALLENGE_BYTES_MAX} bytes"
    );
    Err(Problem::new(Code::UnexpectedVerification, detail))
}
