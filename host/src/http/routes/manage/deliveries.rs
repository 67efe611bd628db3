use crate::http::state::SharedState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use setgate_domain::delivery::{DeliveryRecord, State as DeliveryState};
use setgate_domain::id::{DeliveryId, EventId, FilterName, SourceName, SubscriptionId};
use setgate_domain::time::Timestamp;

use crate::control::deliveries::{DeliveryHistory, DeliveryView};
use crate::control::redrive::{RedriveCounts, RedriveInput, RedriveManyInput, Redrives};
use crate::control::{DeliveryQuery, Page};
use crate::http::auth::{RequestActor, Tenant};
use crate::http::extract::{JsonBody, Named, Query};
use crate::http::openapi::{Operation, get, post};
use crate::http::page::{List, Paging};
use crate::http::problem::Problem;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/deliveries", "listDeliveries", "Lists deliveries, newest first.", list)
            .responds::<Page<DeliveryRecord>>(200, "A page of deliveries."),
        get("/deliveries/{delivery}", "showDelivery", "Shows one delivery with its attempts.", show)
            .responds::<DeliveryView>(200, "The delivery."),
        get("/deliveries/{delivery}/claims", "showClaims", "Shows the claims of a delivery after its filters.", claims)
            .responds::<Map<String, Value>>(200, "The claims of a SET."),
        post(
            "/deliveries/{delivery}/redrive",
            "redriveDelivery",
            "Retries, releases or discards a held or dead delivery.",
            redrive,
        )
        .responds::<DeliveryView>(200, "The updated delivery.")
        .errors([409]),
        post("/deliveries/redrive", "redriveDeliveries", "Retries, releases or discards many held or dead deliveries.", redrive_many)
            .description("Selects deliveries by `where`, oldest first, or by `ids`. If a limit of the request is reached, `next` is the cursor of the next request.")
            .responds::<RedriveCounts>(200, "The number of matched, redriven and skipped deliveries.")
            .errors([409, 422, 429]),
    ]
}

#[derive(Deserialize, JsonSchema)]
pub(in crate::http) struct ListQuery {
    /// Deliveries to this subscription.
    subscription: Option<SubscriptionId>,
    /// Deliveries in this state.
    state: Option<DeliveryState>,
    /// Deliveries of this event.
    event: Option<EventId>,
    /// Deliveries of events with this type, given as the whole URI.
    r#type: Option<String>,
    /// Deliveries of events about exactly this subject.
    subject: Option<String>,
    /// Deliveries of events from this source.
    source: Option<SourceName>,
    /// Deliveries with a chain that ended with a fault of this filter.
    faulted_filter: Option<FilterName>,
    /// Deliveries created at or after this time.
    since: Option<Timestamp>,
    /// Deliveries created before this time.
    until: Option<Timestamp>,
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    Query(asked): Query<ListQuery>,
    paging: Paging,
    State(deliveries): State<DeliveryHistory>,
) -> Result<Json<Page<DeliveryRecord>>, Problem> {
    let query = DeliveryQuery {
        subscription: asked.subscription,
        state: asked.state,
        event: asked.event,
        event_type: asked.r#type,
        subject: asked.subject,
        source: asked.source,
        filter: asked.faulted_filter,
        since: asked.since,
        until: asked.until,
    };
    Ok(paging.answer(deliveries.list(&tenant, query, &paging.query).await?))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(id): Named<DeliveryId>,
    State(deliveries): State<DeliveryHistory>,
) -> Result<Json<DeliveryView>, Problem> {
    Ok(Json(deliveries.show(&tenant, id).await?))
}

pub(in crate::http) async fn claims(
    Tenant(tenant): Tenant,
    Named(id): Named<DeliveryId>,
    State(deliveries): State<DeliveryHistory>,
) -> Result<Response, Problem> {
    let claims = deliveries.claims(&tenant, id).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], claims).into_response())
}

pub(in crate::http) async fn redrive(
    Tenant(tenant): Tenant,
    Named(id): Named<DeliveryId>,
    RequestActor(actor): RequestActor,
    State(redrives): State<Redrives>,
    JsonBody(input): JsonBody<RedriveInput>,
) -> Result<Json<DeliveryView>, Problem> {
    Ok(Json(redrives.redrive(&actor, &tenant, id, input.action).await?))
}

pub(in crate::http) async fn redrive_many(
    Tenant(tenant): Tenant,
    RequestActor(actor): RequestActor,
    State(redrives): State<Redrives>,
    State(app): State<SharedState>,
    list: List,
    JsonBody(mut input): JsonBody<RedriveManyInput>,
) -> Result<Json<RedriveCounts>, Problem> {
    input.cursor = input.cursor.map(|cursor| list.place(&cursor)).transpose()?;
    let mut counts = redrives.redrive_many(&actor, &tenant, input, app.work_limit()).await?;
    counts.next = counts.next.map(|place| list.cursor(&place));
    Ok(Json(counts))
}
