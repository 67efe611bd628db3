use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use super::{Items, items, tagged};
use crate::control::subscriptions::{RotateInput, SubscriptionInput, SubscriptionOnce, SubscriptionView, TestSent};
use crate::domain::id::SubscriptionId;
use crate::http::Site;
use crate::http::auth::{Acting, Tenant};
use crate::http::extract::{IfMatch, JsonBody, Named};
use crate::http::problem::Problem;

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    State(site): State<Site>,
) -> Result<Json<Items<SubscriptionView>>, Problem> {
    Ok(items(site.control.list_subscriptions(&tenant)?))
}

pub(in crate::http) async fn create(
    Tenant(tenant): Tenant,
    Acting(control): Acting,
    JsonBody(input): JsonBody<SubscriptionInput>,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::CREATED, control.create_subscription(&tenant, input).await?))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(id): Named<SubscriptionId>,
    State(site): State<Site>,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, site.control.show_subscription(&tenant, id)?))
}

pub(in crate::http) async fn replace(
    Tenant(tenant): Tenant,
    Named(id): Named<SubscriptionId>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<SubscriptionInput>,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, control.replace_subscription(&tenant, id, input, expected).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PauseInput {
    #[serde(default = "by_request")]
    reason: String,
}

fn by_request() -> String {
    "paused by request".into()
}

pub(in crate::http) async fn pause(
    Tenant(tenant): Tenant,
    Named(id): Named<SubscriptionId>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<PauseInput>,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, control.pause_subscription(&tenant, id, Some(input.reason), expected).await?))
}

pub(in crate::http) async fn resume(
    Tenant(tenant): Tenant,
    Named(id): Named<SubscriptionId>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, control.pause_subscription(&tenant, id, None, expected).await?))
}

pub(in crate::http) async fn rotate(
    Tenant(tenant): Tenant,
    Named(id): Named<SubscriptionId>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<RotateInput>,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, control.rotate_signing_key(&tenant, id, input, expected).await?))
}

pub(in crate::http) async fn test(
    Tenant(tenant): Tenant,
    Named(id): Named<SubscriptionId>,
    Acting(control): Acting,
) -> Result<(StatusCode, Json<TestSent>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(control.test_subscription(&tenant, id).await?)))
}

pub(in crate::http) async fn verify(
    Tenant(tenant): Tenant,
    Named(id): Named<SubscriptionId>,
    Acting(control): Acting,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, control.verify_endpoint(&tenant, id).await?))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(id): Named<SubscriptionId>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    control.remove_subscription(&tenant, id, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(status: StatusCode, subscription: SubscriptionOnce) -> Response {
    tagged(status, subscription.version, subscription)
}
