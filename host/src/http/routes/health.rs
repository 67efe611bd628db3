//! `/healthz`, `/readyz`, `/metrics`.

use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use http::header;
use http::request::Parts;
use setgate_domain::tenant::Scope;

use crate::http::auth::Operator;
use crate::http::openapi::{DescribeInput, Operation, OperationDraft, get};
use crate::http::problem::{Code, Problem};
use crate::http::state::SharedState;

/// See [`crate::http::routes`].
pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/healthz", "isAlive", "Liveness probe.", alive).responds_text(200, "text/plain", "The process is alive."),
        get("/readyz", "isReady", "Readiness probe: whether the host accepts events.", ready)
            .responds_text(200, "text/plain", "The host accepts events.")
            .errors([503]),
        get("/metrics", "showMetrics", "Metrics in the Prometheus text format.", metrics)
            .description("Requires an operator key unless `listen.metrics_open` is set.")
            .responds_text(200, "text/plain", "The metrics."),
    ]
}

/// The process is alive.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// The host can accept events: the ledger answers and the host is not shutting down.
pub(super) async fn ready(State(app): State<SharedState>) -> Result<&'static str, Problem> {
    let not_ready = |why: &str| Problem::new(Code::NotReady, why);
    if app.stopping.is_cancelled() {
        return Err(not_ready("the host is stopping"));
    }
    match app.readiness.why_not_ready().await {
        None => Ok("ready\n"),
        Some(why) => Err(not_ready(&why)),
    }
}

/// Access to the metrics: the operator's key, or no key if `listen.metrics_open` allows it.
pub(super) struct Reader;

impl FromRequestParts<SharedState> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedState) -> Result<Self, Problem> {
        if !app.metrics_open() {
            Operator::from_request_parts(parts, app).await?;
        }
        Ok(Self)
    }
}

impl DescribeInput for Reader {
    fn describe(draft: &mut OperationDraft<'_>) {
        draft.may_need(Scope::Operator);
    }
}

/// Prometheus text format.
pub(super) async fn metrics(_: Reader, State(app): State<SharedState>) -> Result<Response, Problem> {
    let text = (app.metrics)().await;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
