use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use setgate_domain::id::ReplayId;
use setgate_domain::replay::ReplayRecord;

use super::{located, path_of};
use crate::control::Page;
use crate::control::replays::{ReplayBegun, ReplayInput, Replays};
use crate::http::auth::{RequestActor, Tenant};
use crate::http::extract::{JsonBody, Named};
use crate::http::openapi::{Operation, delete, get, post};
use crate::http::page::Paging;
use crate::http::problem::Problem;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/replays", "listReplays", "Lists replays, newest first.", list)
            .responds::<Page<ReplayRecord>>(200, "A page of replays."),
        post("/replays", "createReplay", "Replays past events to one subscription at a given rate.", create)
            .description("Each event becomes a new delivery and runs the chain as it is at that time. A replay continues after a restart of the host.")
            .responds::<ReplayBegun>(201, "The replay has started.")
            .errors([409, 422]),
        get("/replays/{replay}", "showReplay", "Shows one replay and its progress.", show)
            .responds::<ReplayRecord>(200, "The replay."),
        delete("/replays/{replay}", "cancelReplay", "Cancels a replay. Its existing deliveries remain.", cancel)
            .responds::<ReplayRecord>(200, "The cancelled replay.")
            .errors([409]),
    ]
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    paging: Paging,
    State(replays): State<Replays>,
) -> Result<Json<Page<ReplayRecord>>, Problem> {
    Ok(paging.answer(replays.list(&tenant, &paging.query).await?))
}

pub(in crate::http) async fn create(
    Tenant(tenant): Tenant,
    RequestActor(actor): RequestActor,
    State(replays): State<Replays>,
    JsonBody(input): JsonBody<ReplayInput>,
) -> Result<Response, Problem> {
    let begun = replays.start(&actor, &tenant, input).await?;
    let path = path_of(&tenant, format_args!("/replays/{}", begun.record.replay.id));
    Ok((StatusCode::CREATED, located(&path), Json(begun)).into_response())
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(id): Named<ReplayId>,
    State(replays): State<Replays>,
) -> Result<Json<ReplayRecord>, Problem> {
    Ok(Json(replays.show(&tenant, id).await?))
}

pub(in crate::http) async fn cancel(
    Tenant(tenant): Tenant,
    Named(id): Named<ReplayId>,
    RequestActor(actor): RequestActor,
    State(replays): State<Replays>,
) -> Result<Json<ReplayRecord>, Problem> {
    Ok(Json(replays.cancel(&actor, &tenant, id).await?))
}
