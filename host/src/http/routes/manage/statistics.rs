use axum::Json;
use axum::extract::State;

use crate::control::statistics::{Statistics, StatisticsQuery, StatisticsView};
use crate::http::auth::Tenant;
use crate::http::extract::{OfSubscription, Query};
use crate::http::openapi::{Operation, get};
use crate::http::problem::Problem;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/statistics", "showStatistics", "Shows statistics of all deliveries of the tenant.", of_tenant)
            .responds::<StatisticsView>(200, "Counts and latencies within the window."),
        get(
            "/subscriptions/{subscription}/statistics",
            "showSubscriptionStatistics",
            "Shows statistics of the deliveries of a subscription.",
            of_subscription,
        )
        .responds::<StatisticsView>(200, "Counts and latencies within the window."),
    ]
}

pub(in crate::http) async fn of_tenant(
    Tenant(tenant): Tenant,
    Query(asked): Query<StatisticsQuery>,
    State(statistics): State<Statistics>,
) -> Result<Json<StatisticsView>, Problem> {
    Ok(Json(statistics.show(&tenant, None, asked.window).await?))
}

pub(in crate::http) async fn of_subscription(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    Query(asked): Query<StatisticsQuery>,
    State(statistics): State<Statistics>,
) -> Result<Json<StatisticsView>, Problem> {
    Ok(Json(statistics.show(&tenant, Some(id), asked.window).await?))
}
