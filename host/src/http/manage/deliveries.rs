use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Deserialize;

use crate::control::deliveries::{DeliveryView, RedriveInput};
use crate::control::redrive::{RedriveCounts, RedriveManyInput};
use crate::control::{DeliveryQuery, Page};
use crate::domain::delivery::{DeliveryRecord, State as DeliveryState};
use crate::domain::id::{DeliveryId, EventId, FilterName, SourceName, SubscriptionId};
use crate::domain::time::Timestamp;
use crate::http::Site;
use crate::http::auth::{Acting, Tenant};
use crate::http::extract::{JsonBody, Named, Query};
use crate::http::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    subscription: Option<SubscriptionId>,
    state: Option<DeliveryState>,
    event: Option<EventId>,
    r#type: Option<String>,
    subject: Option<String>,
    source: Option<SourceName>,
    filter: Option<FilterName>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// Items of a page where the request does not say.
pub(super) const PAGE_DEFAULT: usize = 50;

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    Query(asked): Query<ListQuery>,
    State(site): State<Site>,
) -> Result<Json<Page<DeliveryRecord>>, Problem> {
    let query = DeliveryQuery {
        subscription: asked.subscription,
        state: asked.state,
        event: asked.event,
        event_type: asked.r#type,
        subject: asked.subject,
        source: asked.source,
        filter: asked.filter,
        since: asked.since,
        until: asked.until,
    };
    let limit = asked.limit.unwrap_or(PAGE_DEFAULT);
    Ok(Json(site.control.list_deliveries(&tenant, query, asked.cursor, limit).await?))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(id): Named<DeliveryId>,
    State(site): State<Site>,
) -> Result<Json<DeliveryView>, Problem> {
    Ok(Json(site.control.show_delivery(&tenant, id).await?))
}

pub(in crate::http) async fn claims(
    Tenant(tenant): Tenant,
    Named(id): Named<DeliveryId>,
    State(site): State<Site>,
) -> Result<Response, Problem> {
    let claims = site.control.show_delivery_claims(&tenant, id).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], claims).into_response())
}

pub(in crate::http) async fn redrive(
    Tenant(tenant): Tenant,
    Named(id): Named<DeliveryId>,
    Acting(control): Acting,
    JsonBody(input): JsonBody<RedriveInput>,
) -> Result<Json<DeliveryView>, Problem> {
    Ok(Json(control.redrive(&tenant, id, input.action).await?))
}

pub(in crate::http) async fn redrive_many(
    Tenant(tenant): Tenant,
    State(site): State<Site>,
    JsonBody(input): JsonBody<RedriveManyInput>,
) -> Result<Json<RedriveCounts>, Problem> {
    Ok(Json(site.control.redrive_many(&tenant, input).await?))
}
