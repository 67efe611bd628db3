//! `/ingest/{tenant}/{source}`: events in, and the WebSub verification of a source that expects it.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use metrics::counter;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::Site;
use super::extract::{self, Query};
use super::problem::Problem;
use crate::domain::id::{EventId, SourceName, TenantId};
use crate::pipeline::accept::Refused;
use crate::pipeline::prove::{Inbound, Unproven};
use crate::telemetry::metric;

#[derive(Serialize)]
struct Accepted {
    event: EventId,
    duplicate: bool,
}

/// Answers 202 once the event is on disk.
pub(super) async fn event(
    State(site): State<Site>,
    Path((tenant, source)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (tenant, source) = parse(&tenant, &source)?;
    let headers = request.headers().clone();
    // Nothing is read for a source that is not there.
    if !site.control.has_source(&tenant, &source) {
        let refused = Refused::from(Unproven::UnknownSource { tenant, source_name: source });
        counter!(metric::INGEST, "tenant" => "", "source" => "", "outcome" => refused.code()).increment(1);
        return Err(refused.into());
    }
    let read = extract::read(&site.events, Some(&tenant), request, site.ingest_body_bytes_max, "the event");
    let (body, _room) = match read.await {
        Ok(read) => read,
        Err(problem) => {
            counter!(metric::INGEST, "tenant" => tenant.to_string(), "source" => source.to_string(),
                "outcome" => problem.code())
            .increment(1);
            return Err(problem);
        }
    };
    let receipt = site.pipeline.ingest(Inbound { tenant, source, headers, body }).await?;
    let accepted = Accepted { event: receipt.event, duplicate: receipt.duplicate };
    Ok((StatusCode::ACCEPTED, Json(accepted)).into_response())
}

#[derive(Deserialize)]
pub(super) struct Verification {
    #[serde(rename = "hub.mode")]
    mode: Option<String>,
    #[serde(rename = "hub.topic")]
    topic: Option<String>,
    #[serde(rename = "hub.challenge")]
    challenge: Option<String>,
    #[serde(rename = "hub.reason")]
    reason: Option<String>,
}

/// W3C WebSub section 5.3: a hub asks whether the subscription is wanted; the answer is its challenge.
pub(super) async fn verification(
    State(site): State<Site>,
    Path((tenant, source)): Path<(String, String)>,
    Query(asked): Query<Verification>,
) -> Result<Response, Problem> {
    let (tenant, source) = parse(&tenant, &source)?;
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

fn parse(tenant: &str, source: &str) -> Result<(TenantId, SourceName), Problem> {
    match (tenant.parse(), source.parse()) {
        (Ok(tenant), Ok(source)) => Ok((tenant, source)),
        (Err(error), _) | (_, Err(error)) => {
            counter!(metric::INGEST, "tenant" => "", "source" => "", "outcome" => "unknown_source").increment(1);
            Err(Problem::new(StatusCode::NOT_FOUND, "unknown_source", error.to_string()))
        }
    }
}
