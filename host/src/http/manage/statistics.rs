use axum::Json;
use axum::extract::State;

use crate::control::statistics::{StatisticsQuery, StatisticsView};
use crate::http::Site;
use crate::http::auth::Tenant;
use crate::http::extract::{OfSubscription, Query};
use crate::http::operations::{Operation, get};
use crate::http::problem::Problem;

/// See [`crate::http::operations`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/statistics", "showStatistics", "Shows statistics of all deliveries of the tenant.", of_tenant)
            .gives::<StatisticsView>(200, "Counts and latencies within the window."),
        get(
            "/subscriptions/{subscription}/statistics",
            "showSubscriptionStatistics",
            "Shows statistics of the deliveries of a subscription.",
            of_subscription,
        )
        .gives::<StatisticsView>(200, "Counts and latencies within the window."),
    ]
}

pub(in crate::http) async fn of_tenant(
    Tenant(tenant): Tenant,
    Query(asked): Query<StatisticsQuery>,
    State(site): State<Site>,
) -> Result<Json<StatisticsView>, Problem> {
    Ok(Json(site.control.statistics(&tenant, None, asked.window).await?))
}

pub(in crate::http) async fn of_subscription(
    Tenant(tenant): Tenant,
    OfSubscription(id): OfSubscription,
    Query(asked): Query<StatisticsQuery>,
    State(site): State<Site>,
) -> Result<Json<StatisticsView>, Problem> {
    Ok(Json(site.control.statistics(&tenant, Some(id), asked.window).await?))
}
