use crate::http::state::SharedState;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use setgate_domain::backtest::BacktestReport;
use setgate_domain::id::FilterName;

use super::{Tagged, path_of};
use crate::control::keys::Access;
use crate::control::rollouts::{BacktestInput, RolloutInput, RolloutView, Rollouts};
use crate::http::auth::{Granted, RequestActor, Tenant};
use crate::http::extract::{IfMatch, JsonBody, Named};
use crate::http::openapi::{Operation, delete, get, post, put};
use crate::http::problem::Problem;
use crate::http::responses::revoked_meanwhile;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        post(
            "/filters/{filter}/backtest",
            "backtestFilter",
            "Runs a version on stored events and reports differences.",
            backtest,
        )
        .description("Does not change or send anything. A tenant can run one backtest at a time.")
        .responds::<BacktestReport>(200, "The differences from the recorded results.")
        .errors([409, 422, 429]),
        get("/filters/{filter}/rollout", "showRollout", "Shows the rollout of a filter and its report.", show)
            .responds::<RolloutView>(200, "The rollout.")
            .tagged(),
        put("/filters/{filter}/rollout", "putRollout", "Starts or changes a rollout.", put_rollout)
            .responds::<RolloutView>(200, "The rollout is changed.")
            .responds::<RolloutView>(201, "The rollout has started.")
            .tagged()
            .errors([409, 412, 422]),
        delete("/filters/{filter}/rollout", "endRollout", "Ends a rollout without changing the active version.", end)
            .responds::<RolloutView>(200, "The rollout has ended.")
            .tagged()
            .errors([412]),
        post(
            "/filters/{filter}/rollout/promote",
            "promoteRollout",
            "Activates the candidate and ends the rollout.",
            promote,
        )
        .responds::<RolloutView>(200, "The candidate is active and the rollout has ended.")
        .tagged()
        .errors([409, 412]),
    ]
}

pub(in crate::http) async fn put_rollout(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    RequestActor(actor): RequestActor,
    State(rollouts): State<Rollouts>,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<RolloutInput>,
) -> Result<Response, Problem> {
    let (view, is_new) = rollouts.put(&actor, &tenant, &name, input, expected).await?;
    Ok(super::put(is_new, &path_of(&tenant, format_args!("/filters/{name}/rollout")), view))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(rollouts): State<Rollouts>,
) -> Result<Tagged<RolloutView>, Problem> {
    Ok(Tagged(rollouts.show(&tenant, &name)?))
}

pub(in crate::http) async fn promote(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    RequestActor(actor): RequestActor,
    State(rollouts): State<Rollouts>,
    IfMatch(expected): IfMatch,
) -> Result<Tagged<RolloutView>, Problem> {
    Ok(Tagged(rollouts.promote(&actor, &tenant, &name, expected).await?))
}

pub(in crate::http) async fn end(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    RequestActor(actor): RequestActor,
    State(rollouts): State<Rollouts>,
    IfMatch(expected): IfMatch,
) -> Result<Tagged<RolloutView>, Problem> {
    Ok(Tagged(rollouts.end(&actor, &tenant, &name, expected).await?))
}

pub(in crate::http) async fn backtest(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(rollouts): State<Rollouts>,
    State(access): State<Access>,
    State(app): State<SharedState>,
    Granted(grant): Granted,
    JsonBody(input): JsonBody<BacktestInput>,
) -> Result<Json<BacktestReport>, Problem> {
    let report = rollouts.backtest(&tenant, &name, input, app.work_limit()).await?;
    // A backtest takes a while: the key may have been revoked since the data was read.
    access.still_holds(&grant).map_err(revoked_meanwhile)?;
    Ok(Json(report))
}
