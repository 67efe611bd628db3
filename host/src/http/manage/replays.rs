use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use setgate_domain::id::ReplayId;
use setgate_domain::replay::ReplayRecord;

use super::{located, path_of};
use crate::control::Page;
use crate::control::replays::{ReplayBegun, ReplayInput};
use crate::http::Site;
use crate::http::auth::{Acting, Tenant};
use crate::http::extract::{JsonBody, Named};
use crate::http::operations::{Operation, delete, get, post};
use crate::http::page::Paging;
use crate::http::problem::Problem;

/// See [`crate::http::operations`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/replays", "listReplays", "Lists replays, newest first.", list)
            .gives::<Page<ReplayRecord>>(200, "A page of replays."),
        post("/replays", "createReplay", "Replays past events to one subscription at a given rate.", create)
            .says("Each event becomes a new delivery and runs the chain as it is at that time. A replay continues after a restart of the host.")
            .gives::<ReplayBegun>(201, "The replay has started.")
            .refuses([409, 422]),
        get("/replays/{replay}", "showReplay", "Shows one replay and its progress.", show)
            .gives::<ReplayRecord>(200, "The replay."),
        delete("/replays/{replay}", "cancelReplay", "Cancels a replay. Its existing deliveries remain.", cancel)
            .gives::<ReplayRecord>(200, "The cancelled replay.")
            .refuses([409]),
    ]
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    paging: Paging,
    State(site): State<Site>,
) -> Result<Json<Page<ReplayRecord>>, Problem> {
    Ok(paging.answer(site.control.list_replays(&tenant, paging.query.clone()).await?))
}

pub(in crate::http) async fn create(
    Tenant(tenant): Tenant,
    Acting(control): Acting,
    JsonBody(input): JsonBody<ReplayInput>,
) -> Result<Response, Problem> {
    let begun = control.create_replay(&tenant, input).await?;
    let path = path_of(&tenant, format_args!("/replays/{}", begun.record.replay.id));
    Ok((StatusCode::CREATED, located(&path), Json(begun)).into_response())
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(id): Named<ReplayId>,
    State(site): State<Site>,
) -> Result<Json<ReplayRecord>, Problem> {
    Ok(Json(site.control.show_replay(&tenant, id).await?))
}

pub(in crate::http) async fn cancel(
    Tenant(tenant): Tenant,
    Named(id): Named<ReplayId>,
    Acting(control): Acting,
) -> Result<Json<ReplayRecord>, Problem> {
    Ok(Json(control.cancel_replay(&tenant, id).await?))
}
