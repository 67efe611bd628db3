//! What holds for every request: the routes are those of the table of operations.

use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use metrics::counter;

use super::caller::{REQUEST_ID, RequestId};
use super::interface::{self, Interface};
use super::problem::Problem;
use super::{Site, operations};
use crate::telemetry::metric;

/// The routes of the interfaces that a listener serves.
pub(super) fn router(site: Site, served: Vec<Interface>) -> Router {
    let routes = operations::routes().fallback(no_route).method_not_allowed_fallback(no_method);
    interface::only(routes, served).layer(middleware::from_fn_with_state(site.clone(), bounded)).with_state(site)
}

async fn no_route() -> Problem {
    Problem::no_route()
}

async fn no_method(method: Method) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no_method", format!("this route does not take {method}"))
}

/// Bounds each request in time and counts its answer.
async fn bounded(State(site): State<Site>, route: Option<MatchedPath>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let limit_ms = site.settings.now().listen.request_ms_max;
    let limit = Duration::from_millis(limit_ms);
    let mut response = match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("the request took longer than {limit_ms} ms");
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
