use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::{Items, items};
use crate::control::replays::ReplayInput;
use crate::domain::id::ReplayId;
use crate::domain::replay::ReplayRecord;
use crate::http::Site;
use crate::http::auth::Tenant;
use crate::http::extract::{JsonBody, Named};
use crate::http::problem::Problem;

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    State(site): State<Site>,
) -> Result<Json<Items<ReplayRecord>>, Problem> {
    Ok(items(site.control.list_replays(&tenant).await?))
}

pub(in crate::http) async fn create(
    Tenant(tenant): Tenant,
    State(site): State<Site>,
    JsonBody(input): JsonBody<ReplayInput>,
) -> Result<(StatusCode, Json<ReplayRecord>), Problem> {
    Ok((StatusCode::CREATED, Json(site.control.create_replay(&tenant, input).await?)))
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
    State(site): State<Site>,
) -> Result<Json<ReplayRecord>, Problem> {
    Ok(Json(site.control.cancel_replay(&tenant, id).await?))
}
