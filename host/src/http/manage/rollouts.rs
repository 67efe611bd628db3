use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::tagged;
use crate::control::rollouts::{BacktestInput, RolloutInput};
use crate::domain::backtest::Report;
use crate::domain::id::FilterName;
use crate::http::Site;
use crate::http::auth::{Acting, Tenant};
use crate::http::extract::{IfMatch, JsonBody, Named};
use crate::http::problem::Problem;

pub(in crate::http) async fn put(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<RolloutInput>,
) -> Result<Response, Problem> {
    let (view, new) = control.put_rollout(&tenant, &name, input, expected).await?;
    Ok(tagged(if new { StatusCode::CREATED } else { StatusCode::OK }, view.version, view))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(site): State<Site>,
) -> Result<Response, Problem> {
    let view = site.control.show_rollout(&tenant, &name)?;
    Ok(tagged(StatusCode::OK, view.version, view))
}

pub(in crate::http) async fn promote(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<Response, Problem> {
    let view = control.promote(&tenant, &name, expected).await?;
    Ok(tagged(StatusCode::OK, view.version, view))
}

pub(in crate::http) async fn end(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<Response, Problem> {
    let view = control.end_rollout(&tenant, &name, expected).await?;
    Ok(tagged(StatusCode::OK, view.version, view))
}

pub(in crate::http) async fn backtest(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(site): State<Site>,
    JsonBody(input): JsonBody<BacktestInput>,
) -> Result<Json<Report>, Problem> {
    Ok(Json(site.control.backtest(&tenant, &name, input).await?))
}
