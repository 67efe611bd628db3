use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::{Items, items};
use crate::control::subscriptions::{RotateInput, SubscriptionInput, SubscriptionOnce, SubscriptionView};
use crate::domain::id::SubscriptionId;
use crate::http::Site;
use crate::http::auth::Tenant;
use crate::http::extract::{JsonBody, Named};
use crate::http::problem::Problem;

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    State(site): State<Site>,
) -> Result<Json<Items<SubscriptionView>>, Problem> {
    Ok(items(site.control.list_subscriptions(&tenant)?))
}

pub(in crate::http) async fn create(
    Tenant(tenant): Tenant,
    State(site): State<Site>,
    JsonBody(input): JsonBody<SubscriptionInput>,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::CREATED, site.control.create_subscription(&tenant, input).await?))
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
    State(site): State<Site>,
    headers: HeaderMap,
    JsonBody(input): JsonBody<SubscriptionInput>,
) -> Result<Response, Problem> {
    let expected = expected_version(&headers)?;
    Ok(shown(StatusCode::OK, site.control.replace_subscription(&tenant, id, input, expected).await?))
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
    State(site): State<Site>,
    JsonBody(input): JsonBody<PauseInput>,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, site.control.pause_subscription(&tenant, id, Some(input.reason)).await?))
}

pub(in crate::http) async fn resume(
    Tenant(tenant): Tenant,
    Named(id): Named<SubscriptionId>,
    State(site): State<Site>,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, site.control.pause_subscription(&tenant, id, None).await?))
}

pub(in crate::http) async fn rotate(
    Tenant(tenant): Tenant,
    Named(id): Named<SubscriptionId>,
    State(site): State<Site>,
    JsonBody(input): JsonBody<RotateInput>,
) -> Result<Response, Problem> {
    Ok(shown(StatusCode::OK, site.control.rotate_signing_key(&tenant, id, input).await?))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(id): Named<SubscriptionId>,
    State(site): State<Site>,
) -> Result<StatusCode, Problem> {
    site.control.remove_subscription(&tenant, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(status: StatusCode, subscription: SubscriptionOnce) -> Response {
    let etag = format!("\"{}\"", subscription.version);
    (status, [(header::ETAG, etag)], Json(subscription)).into_response()
}

/// RFC 9110 section 13.1.1; one strong tag or `*`.
fn expected_version(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(given) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let tag = given.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
    version.map(Some).ok_or_else(|| {
        let detail = "`if-match` is not an ETag that this host gave: send the one of your last GET";
        Problem::new(StatusCode::PRECONDITION_FAILED, "version_changed", detail)
    })
}
