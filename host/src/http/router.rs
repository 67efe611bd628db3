//! The router and the middleware of all requests. The routes come from the table of operations.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, header};
use metrics::{Counter, counter};
use setgate_base::telemetry::{MetricHandleCache, metric};

use super::caller::{REQUEST_ID, RequestId};
use super::extract::IfNoneMatch;
use super::listener::framing;
use super::listener::interface::Interface;
use super::problem::{Code, Problem};
use super::responses::{self, GrantSlot};
use super::routes::rules;
use super::state::SharedState;
use super::{idempotency, route_filter, routes};
use crate::control::keys::Grant;

/// Counts answers by route and status.
#[derive(Default)]
struct Answered(MetricHandleCache<String, Arc<MetricHandleCache<u16, Counter>>>);

impl Answered {
    fn count(&self, route: &str, status: StatusCode) {
        let new =
            || counter!(metric::HTTP_REQUESTS, "route" => route.to_owned(), "status" => status.as_str().to_owned());
        self.0.get_or_create(route, Arc::default).get_or_create(&status.as_u16(), new).increment(1);
    }
}

/// The routes of the interfaces that a listener serves.
pub fn router(app: SharedState, served: Vec<Interface>) -> Router {
    let routes = routes::routes().fallback(no_route).method_not_allowed_fallback(no_method);
    let routes = routes
        .layer(middleware::from_fn(revalidated))
        .layer(middleware::from_fn_with_state(app.clone(), idempotency::once))
        .layer(middleware::from_fn_with_state(app.clone(), rules::check_query));
    let known = (app.clone(), Arc::<Answered>::default());
    route_filter::only(routes, served).layer(middleware::from_fn_with_state(known, bounded)).with_state(app)
}

async fn no_route() -> Problem {
    Problem::no_route()
}

/// The router adds `allow` to the answer (RFC 9110 sections 9.3.7 and 15.5.6).
async fn no_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let detail = format!("this route does not support {method}: the header `allow` lists the supported methods");
    Problem::new(Code::NoMethod, detail).into_response()
}

/// Answers 304 to a GET if the client already has the current version (RFC 9110 section 13.1.2).
async fn revalidated(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads || !request.headers().contains_key(header::IF_NONE_MATCH) {
        return next.run(request).await;
    }
    let known = IfNoneMatch::of(request.headers());
    let response = next.run(request).await;
    let tag = response.headers().get(header::ETAG).filter(|_| response.status() == StatusCode::OK).cloned();
    match tag {
        Some(tag) if tag.to_str().is_ok_and(|tag| known.has(tag)) => {
            (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response()
        }
        _ => response,
    }
}

/// Applies the request timeout and counts the answer.
async fn bounded(
    State((app, answered)): State<(SharedState, Arc<Answered>)>,
    route: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let access = GrantSlot::default();
    request.extensions_mut().insert(access.clone());
    let method = request.method().clone();
    let limit_ms = app.listen.now().request_ms_max;
    let answered_by = async {
        let response = match framing::check(request.headers()) {
            Ok(()) => next.run(request).await,
            // A proxy in front may see the end of this request elsewhere.
            Err(problem) => ([(header::CONNECTION, "close")], problem).into_response(),
        };
        let tenant = access.get().map(Grant::tenant);
        responses::charge_response(&app, &method, tenant, &access, response).await
    };
    let mut response = match tokio::time::timeout(Duration::from_millis(limit_ms), answered_by).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("the request took longer than {limit_ms} ms");
            Problem::new(Code::RequestTimeout, detail).into_response()
        }
    };
    access.release();
    response.headers_mut().insert(REQUEST_ID, id.into_header());
    // A trailing slash does not make a different route.
    let route = route.as_ref().map_or("none", |route| route.as_str().trim_end_matches('/'));
    answered.count(route, response.status());
    response
}
