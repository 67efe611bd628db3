//! `/healthz`, `/readyz`, `/metrics`.

use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use http::header;
use http::request::Parts;
use setgate_domain::tenant::Scope;

use super::Site;
use super::auth::Operator;
use super::operations::{Described, Operation, Sheet, get};
use super::problem::{Code, Problem};

/// See [`super::operations`].
pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/healthz", "isAlive", "Liveness probe.", alive).gives_text(200, "text/plain", "The process is alive."),
        get("/readyz", "isReady", "Readiness probe: whether the host accepts events.", ready)
            .gives_text(200, "text/plain", "The host accepts events.")
            .refuses([503]),
        get("/metrics", "showMetrics", "Metrics in the Prometheus text format.", metrics)
            .says("Requires an operator key unless `listen.metrics_open` is set.")
            .gives_text(200, "text/plain", "The metrics."),
    ]
}

/// The process is alive.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// The host can accept events: the ledger answers and the host is not shutting down.
pub(super) async fn ready(State(site): State<Site>) -> Result<&'static str, Problem> {
    let not_ready = |why: &str| Problem::new(Code::NotReady, why);
    if site.stopping.is_cancelled() {
        return Err(not_ready("the host is stopping"));
    }
    match site.pipeline.why_not_ready().await {
        None => Ok("ready\n"),
        Some(why) => Err(not_ready(&why)),
    }
}

/// Access to the metrics: the operator's key, or no key if `listen.metrics_open` allows it.
pub(super) struct Reader;

impl FromRequestParts<Site> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Problem> {
        if !site.metrics_open() {
            Operator::from_request_parts(parts, site).await?;
        }
        Ok(Self)
    }
}

impl Described for Reader {
    fn describe(sheet: &mut Sheet<'_>) {
        sheet.may_need(Scope::Operator);
    }
}

/// Prometheus text format.
pub(super) async fn metrics(_: Reader, State(site): State<Site>) -> Result<Response, Problem> {
    let text = (site.metrics)().await;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
