use axum::Json;
use axum::extract::State;
use http::StatusCode;

use crate::control::rollouts::{BacktestInput, RolloutInput, RolloutView};
use crate::domain::backtest::Report;
use crate::domain::id::FilterName;
use crate::http::Site;
use crate::http::auth::Tenant;
use crate::http::extract::{JsonBody, Named};
use crate::http::problem::Problem;

pub(in crate::http) async fn put(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(site): State<Site>,
    JsonBody(input): JsonBody<RolloutInput>,
) -> Result<(StatusCode, Json<RolloutView>), Problem> {
    let (view, new) = site.control.put_rollout(&tenant, &name, input).await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(view)))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(site): State<Site>,
) -> Result<Json<RolloutView>, Problem> {
    Ok(Json(site.control.show_rollout(&tenant, &name)?))
}

pub(in crate::http) async fn promote(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(site): State<Site>,
) -> Result<Json<RolloutView>, Problem> {
    Ok(Json(site.control.promote(&tenant, &name).await?))
}

pub(in crate::http) async fn end(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(site): State<Site>,
) -> Result<Json<RolloutView>, Problem> {
    Ok(Json(site.control.end_rollout(&tenant, &name).await?))
}

pub(in crate::http) async fn backtest(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(site): State<Site>,
    JsonBody(input): JsonBody<BacktestInput>,
) -> Result<Json<Report>, Problem> {
    Ok(Json(site.control.backtest(&tenant, &name, input).await?))
}
