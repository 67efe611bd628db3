//! `/ingest/{tenant}/{source}`: events in, and the WebSub verification of a source that expects it.

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Method, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::info;

use super::Site;
use super::extract::{self, Arrived, Query};
use super::operations::{Described, Operation, Sheet, get, post};
use super::problem::Problem;
use crate::domain::id::{EventId, SourceName, TenantId};
use crate::pipeline::accept::Refused;
use crate::pipeline::prove::{Inbound, Unproven};

/// See [`super::operations`].
pub(super) fn operations() -> Vec<Operation> {
    vec![
        post("/ingest/{tenant}/{source}", "ingestEvent", "Takes in an event.", event)
            .says("In the form that the source was set up with. 202 is said once the event is on disk, and not before.")
            .takes(&["application/json", "application/secevent+json"], "The event as its product sends it.")
            .like("application/json", example())
            .gives::<Accepted>(202, "It is on disk.")
            .refuses([400, 401, 409, 413, 415, 429, 500, 503]),
        get(
            "/ingest/{tenant}/{source}",
            "verifyTopic",
            "Answers a hub's verification (W3C WebSub section 5.3).",
            verification,
        )
        .gives_text(200, "text/plain", "The challenge; nothing where the hub denied the topic."),
    ]
}

/// A SET as a source of the form `set` sends it (OpenID CAEP 1.0, section 3.1).
fn example() -> Value {
    json!({
        "iss": "https://idp.example.com/",
        "jti": "24c63fb56e5a2d77a6b512616ca9fa24",
        "iat": 1_615_305_159,
        "sub_id": {"format": "email", "email": "jane@example.com"},
        "events": {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {"event_timestamp": 1_615_304_991}},
    })
}

/// What is said of an event that is on disk.
#[derive(Serialize, JsonSchema)]
struct Accepted {
    /// Its id.
    event: EventId,
    /// Whether it was taken in before: then it is not delivered again.
    duplicate: bool,
}

/// Where a request is sent to.
pub(super) struct Place {
    tenant: TenantId,
    source: SourceName,
}

impl FromRequestParts<Site> for Place {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Problem> {
        let (tenant, source) = (extract::named(parts, site).await, extract::named(parts, site).await);
        match (tenant, source) {
            (Ok(tenant), Ok(source)) => Ok(Self { tenant, source }),
            (Err(why), _) | (_, Err(why)) => {
                site.pipeline.counted(None, "unknown_source");
                Err(Problem::new(StatusCode::NOT_FOUND, "unknown_source", why))
            }
        }
    }
}

impl Described for Place {
    fn describe(sheet: &mut Sheet<'_>) {
        sheet.in_path::<TenantId>();
        sheet.in_path::<SourceName>();
        // A hub that verifies a topic has nothing to prove.
        if sheet.method() == Method::POST {
            sheet.needs_proof();
        }
    }
}

/// Answers 202 once the event is on disk.
pub(super) async fn event(
    Place { tenant, source }: Place,
    State(site): State<Site>,
    request: Request,
) -> Result<Response, Problem> {
    // Nothing is read for a source that is not there.
    if !site.control.has_source(&tenant, &source) {
        let refused = Refused::from(Unproven::UnknownSource { tenant, source_name: source });
        site.pipeline.counted(None, refused.code());
        return Err(refused.into());
    }
    let bytes_max = site.settings.now().ingest.body_bytes_max;
    let read = extract::read(&site, &site.events, Some(&tenant), request, bytes_max, "the event");
    let Arrived { headers, body, room: _room } = match read.await {
        Ok(read) => read,
        Err(problem) => {
            site.pipeline.counted(Some((&tenant, &source)), problem.code());
            return Err(problem);
        }
    };
    let receipt = site.pipeline.ingest(Inbound { tenant, source, headers, body }).await?;
    let accepted = Accepted { event: receipt.event, duplicate: receipt.duplicate };
    Ok((StatusCode::ACCEPTED, Json(accepted)).into_response())
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Verification {
    /// `subscribe` or `denied`; all else is refused.
    #[serde(rename = "hub.mode")]
    mode: Option<String>,
    /// Which topic; one that the source lists.
    #[serde(rename = "hub.topic")]
    topic: Option<String>,
    /// What is to be answered.
    #[serde(rename = "hub.challenge")]
    challenge: Option<String>,
    /// Why the hub denied it.
    #[serde(rename = "hub.reason")]
    reason: Option<String>,
}

/// W3C WebSub section 5.3: a hub asks whether the subscription is wanted; the answer is its challenge.
pub(super) async fn verification(
    Place { tenant, source }: Place,
    State(site): State<Site>,
    Query(asked): Query<Verification>,
) -> Result<Response, Problem> {
    let topic = asked.topic.as_deref().unwrap_or_default();
    let expected = !topic.is_empty() && site.control.expects_topic(&tenant, &source, topic);
    let unexpected = || {
        let detail = "no verification of this topic is expected here: list it in the source's `websub_topics`";
        Problem::new(StatusCode::NOT_FOUND, "unexpected_verification", detail)
    };
    match (asked.mode.as_deref(), asked.challenge) {
        (Some("subscribe"), Some(challenge)) if expected => {
            info!(%tenant, %source, topic, "answered a WebSub verification");
            let plain =
                [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
            Ok((StatusCode::OK, plain, challenge).into_response())
        }
        // Leaving a topic that is still listed is not what this source's owner asked for: the hub is told so.
        (Some("denied"), _) if expected => {
            tracing::warn!(%tenant, %source, topic, reason = asked.reason.as_deref(), "a hub denied a subscription");
            Ok(StatusCode::OK.into_response())
        }
        _ => Err(unexpected()),
    }
}
