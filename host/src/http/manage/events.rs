use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::deliveries::PAGE_DEFAULT;
use crate::control::events::EventView;
use crate::control::{EventQuery, Page};
use crate::domain::event::EventRecord;
use crate::domain::id::{EventId, SourceName};
use crate::domain::time::Timestamp;
use crate::http::Site;
use crate::http::auth::Tenant;
use crate::http::extract::{Named, Query};
use crate::http::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    r#type: Option<String>,
    subject: Option<String>,
    jti: Option<String>,
    source: Option<SourceName>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    cursor: Option<String>,
    limit: Option<usize>,
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    Query(asked): Query<ListQuery>,
    State(site): State<Site>,
) -> Result<Json<Page<EventRecord>>, Problem> {
    let query = EventQuery {
        event_type: asked.r#type,
        subject: asked.subject,
        jti: asked.jti,
        source: asked.source,
        since: asked.since,
        until: asked.until,
    };
    Ok(Json(site.control.list_events(&tenant, query, asked.cursor, asked.limit.unwrap_or(PAGE_DEFAULT)).await?))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(id): Named<EventId>,
    State(site): State<Site>,
) -> Result<Json<EventView>, Problem> {
    Ok(Json(site.control.show_event(&tenant, id).await?))
}
