use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;
use setgate_domain::event::EventRecord;
use setgate_domain::id::{EventId, SourceName};
use setgate_domain::time::Timestamp;

use crate::control::events::{EventView, Events};
use crate::control::{EventQuery, Page};
use crate::http::auth::Tenant;
use crate::http::extract::{Named, Query};
use crate::http::openapi::{Operation, get};
use crate::http::page::Paging;
use crate::http::problem::Problem;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/events", "listEvents", "Lists events, newest first, without their SETs.", list)
            .responds::<Page<EventRecord>>(200, "A page of events."),
        get("/events/{event}", "showEvent", "Shows one event with its SET before filters.", show)
            .responds::<EventView>(200, "The event."),
    ]
}

#[derive(Deserialize, JsonSchema)]
pub(in crate::http) struct ListQuery {
    /// Events with this type among theirs, given as the whole URI.
    r#type: Option<String>,
    /// Events about exactly this subject.
    subject: Option<String>,
    /// Events with this `jti`.
    jti: Option<String>,
    /// Events from this source.
    source: Option<SourceName>,
    /// Events accepted at or after this time.
    since: Option<Timestamp>,
    /// Events accepted before this time.
    until: Option<Timestamp>,
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    Query(asked): Query<ListQuery>,
    paging: Paging,
    State(events): State<Events>,
) -> Result<Json<Page<EventRecord>>, Problem> {
    let query = EventQuery {
        event_type: asked.r#type,
        subject: asked.subject,
        jti: asked.jti,
        source: asked.source,
        since: asked.since,
        until: asked.until,
    };
    Ok(paging.answer(events.list(&tenant, query, &paging.query).await?))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(id): Named<EventId>,
    State(events): State<Events>,
) -> Result<Json<EventView>, Problem> {
    Ok(Json(events.show(&tenant, id).await?))
}
