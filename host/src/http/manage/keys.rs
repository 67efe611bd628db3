use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::{Items, items};
use crate::control::keys::{KeyOnce, KeyView, NewKey};
use crate::http::Site;
use crate::http::auth::{Caller, Operator, Tenant};
use crate::http::extract::{JsonBody, Named};
use crate::http::problem::Problem;

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    State(site): State<Site>,
) -> Result<Json<Items<KeyView>>, Problem> {
    Ok(items(site.control.list_keys(&tenant)?))
}

pub(in crate::http) async fn create(
    Tenant(tenant): Tenant,
    Caller(by): Caller,
    State(site): State<Site>,
    JsonBody(new): JsonBody<NewKey>,
) -> Result<(StatusCode, Json<KeyOnce>), Problem> {
    Ok((StatusCode::CREATED, Json(site.control.create_key(&by, &tenant, new).await?)))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(id): Named<crate::domain::id::KeyId>,
    State(site): State<Site>,
) -> Result<StatusCode, Problem> {
    site.control.remove_key(&tenant, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::http) async fn list_operator(_: Operator, State(site): State<Site>) -> Json<Items<KeyView>> {
    items(site.control.list_operator_keys())
}

pub(in crate::http) async fn create_operator(
    _: Operator,
    State(site): State<Site>,
    JsonBody(new): JsonBody<NewKey>,
) -> Result<(StatusCode, Json<KeyOnce>), Problem> {
    Ok((StatusCode::CREATED, Json(site.control.create_operator_key(new).await?)))
}

pub(in crate::http) async fn remove_operator(
    _: Operator,
    Named(id): Named<crate::domain::id::KeyId>,
    State(site): State<Site>,
) -> Result<StatusCode, Problem> {
    site.control.remove_operator_key(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
