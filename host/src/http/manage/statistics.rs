use axum::Json;
use axum::extract::State;

use crate::control::statistics::{StatisticsQuery, StatisticsView};
use crate::domain::id::SubscriptionId;
use crate::http::Site;
use crate::http::auth::Tenant;
use crate::http::extract::{Named, Query};
use crate::http::problem::Problem;

pub(in crate::http) async fn of_tenant(
    Tenant(tenant): Tenant,
    Query(asked): Query<StatisticsQuery>,
    State(site): State<Site>,
) -> Result<Json<StatisticsView>, Problem> {
    Ok(Json(site.control.statistics(&tenant, None, asked.window).await?))
}

pub(in crate::http) async fn of_subscription(
    Tenant(tenant): Tenant,
    Named(id): Named<SubscriptionId>,
    Query(asked): Query<StatisticsQuery>,
    State(site): State<Site>,
) -> Result<Json<StatisticsView>, Problem> {
    Ok(Json(site.control.statistics(&tenant, Some(id), asked.window).await?))
}
