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
        get("/replays", "listReplays", "All replays, newest first.", list)
            .gives::<Page<ReplayRecord>>(200, "The replays."),
        post("/replays", "createReplay", "Sends past events to one subscription once more, at a rate.", create)
            .says("They go through its filters as they are then, as new deliveries. It goes on over a restart.")
            .gives::<ReplayBegun>(201, "It has begun.")
            .refuses([409, 422]),
        get("/replays/{replay}", "showReplay", "One replay and how far it has come.", show)
            .gives::<ReplayRecord>(200, "The replay."),
        delete("/replays/{replay}", "cancelReplay", "Ends a replay; what it has made stays.", cancel)
            .gives::<ReplayRecord>(200, "The replay as it is now.")
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
