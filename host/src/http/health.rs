//! `/healthz`, `/readyz`, `/metrics`.

use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use super::Site;
use super::auth::Operator;
use super::problem::Problem;

/// The process is alive.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// Events can be taken in: the ledger answers and the host is not on its way down.
pub(super) async fn ready(State(site): State<Site>) -> Result<&'static str, Problem> {
    let not_ready = |why: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why);
    if site.stopping.is_cancelled() {
        return Err(not_ready("the host is stopping"));
    }
    match site.pipeline.why_not_ready().await {
        None => Ok("ready\n"),
        Some(why) => Err(not_ready(&why)),
    }
}

/// Prometheus text format.
pub(super) async fn metrics(State(site): State<Site>, request: Request) -> Result<Response, Problem> {
    if !site.metrics_open {
        let (mut parts, _) = request.into_parts();
        Operator::from_request_parts(&mut parts, &site).await?;
    }
    let text = (site.metrics)();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
