//! All routes on one screen.

use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{Method, StatusCode};
use metrics::counter;

use super::caller::{REQUEST_ID, RequestId};
use super::manage::{
    audit, deliveries, events, filters, keys, replays, reproduction, rollouts, sources, statistics, subscriptions,
    tables, tail, tenants,
};
use super::problem::Problem;
use super::{Site, health, ingest};
use crate::telemetry::metric;

pub(super) fn router(site: Site) -> Router {
    let tenant = Router::new()
        .route("/", get(tenants::show).patch(tenants::change).delete(tenants::remove))
        .route("/audit", get(audit::list))
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{name}", get(keys::show).patch(keys::label).delete(keys::remove))
        .route("/keys/{name}/rotate", post(keys::rotate))
        .route("/sources", get(sources::list))
        .route("/sources/{name}", get(sources::show).put(sources::put).delete(sources::remove))
        .route("/filters", get(filters::list))
        .route("/filters/{name}", get(filters::show).put(filters::upload).delete(filters::remove))
        .route("/filters/{name}/activate", post(filters::activate))
        .route("/filters/{name}/rollback", post(filters::roll_back))
        .route("/filters/{name}/backtest", post(rollouts::backtest))
        .route("/filters/{name}/rollout", get(rollouts::show).put(rollouts::put).delete(rollouts::end))
        .route("/filters/{name}/rollout/promote", post(rollouts::promote))
        .route("/filters/{name}/resume", post(filters::resume))
        .route("/filters/{name}/versions/{digest}", get(reproduction::component))
        .route("/tables", get(tables::list))
        .route("/tables/{name}", get(tables::show).put(tables::put).delete(tables::remove))
        .route("/tables/{name}/activate", post(tables::activate))
        .route("/tables/{name}/rollback", post(tables::roll_back))
        .route("/tables/{name}/versions/{digest}", get(reproduction::rows))
        .route("/subscriptions", get(subscriptions::list).post(subscriptions::create))
        .route(
            "/subscriptions/{name}",
            get(subscriptions::show).put(subscriptions::replace).delete(subscriptions::remove),
        )
        .route("/subscriptions/{name}/pause", post(subscriptions::pause))
        .route("/subscriptions/{name}/resume", post(subscriptions::resume))
        .route("/subscriptions/{name}/rotate-key", post(subscriptions::rotate))
        .route("/subscriptions/{name}/statistics", get(statistics::of_subscription))
        .route("/statistics", get(statistics::of_tenant))
        .route("/replays", get(replays::list).post(replays::create))
        .route("/replays/{name}", get(replays::show).delete(replays::cancel))
        .route("/subscriptions/{name}/test", post(subscriptions::test))
        .route("/subscriptions/{name}/verify", post(subscriptions::verify))
        .route("/events", get(events::list))
        .route("/events/{name}", get(events::show))
        .route("/deliveries", get(deliveries::list))
        .route("/deliveries/tail", get(tail::tail))
        .route("/deliveries/redrive", post(deliveries::redrive_many))
        .route("/deliveries/{name}", get(deliveries::show))
        .route("/deliveries/{name}/claims", get(deliveries::claims))
        .route("/deliveries/{name}/redrive", post(deliveries::redrive))
        .route("/deliveries/{name}/reproduction", get(reproduction::bundle))
        .route("/deliveries/{name}/reproduce", post(reproduction::reproduce));

    Router::new()
        .route("/ingest/{tenant}/{source}", post(ingest::event).get(ingest::verification))
        .route("/api/v1/tenants", get(tenants::list).post(tenants::create))
        .route("/api/v1/audit", get(audit::list_whole))
        .route("/api/v1/keys", get(keys::list_operator).post(keys::create_operator))
        .route(
            "/api/v1/keys/{name}",
            get(keys::show_operator).patch(keys::label_operator).delete(keys::remove_operator),
        )
        .route("/api/v1/keys/{name}/rotate", post(keys::rotate_operator))
        .nest("/api/v1/tenants/{tenant}", tenant)
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(site.clone(), bounded))
        .with_state(site)
}

pub(super) async fn no_route() -> Problem {
    let detail = "there is no such route: events go to /ingest/{tenant}/{source}, management to /api/v1/tenants/...";
    Problem::new(StatusCode::NOT_FOUND, "no_route", detail)
}

async fn no_method(method: Method) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no_method", format!("this route does not take {method}"))
}

/// Bounds each request in time and counts its answer.
async fn bounded(State(site): State<Site>, route: Option<MatchedPath>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let limit = Duration::from_millis(site.request_ms_max);
    let mut response = match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("the request took longer than {} ms", site.request_ms_max);
            Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail).into_response()
        }
    };
    if let Some(id) = id.header() {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let route = route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    counter!(metric::HTTP_REQUESTS, "route" => route, "status" => response.status().as_str().to_owned()).increment(1);
    response
}
