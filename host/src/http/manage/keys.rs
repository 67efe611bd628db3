use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::{Items, items};
use crate::control::keys::{KeyChange, KeyOnce, KeyView, NewKey, RotateKey};
use crate::domain::id::KeyId;
use crate::http::Site;
use crate::http::auth::{Acting, Caller, Operator, Tenant};
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
    Acting(control): Acting,
    JsonBody(new): JsonBody<NewKey>,
) -> Result<(StatusCode, Json<KeyOnce>), Problem> {
    Ok((StatusCode::CREATED, Json(control.create_key(&by, &tenant, new).await?)))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(id): Named<KeyId>,
    State(site): State<Site>,
) -> Result<Json<KeyView>, Problem> {
    Ok(Json(site.control.show_key(Some(&tenant), id)?))
}

pub(in crate::http) async fn label(
    Tenant(tenant): Tenant,
    Named(id): Named<KeyId>,
    Acting(control): Acting,
    JsonBody(change): JsonBody<KeyChange>,
) -> Result<Json<KeyView>, Problem> {
    Ok(Json(control.label_key(Some(&tenant), id, change).await?))
}

pub(in crate::http) async fn rotate(
    Tenant(tenant): Tenant,
    Caller(by): Caller,
    Named(id): Named<KeyId>,
    Acting(control): Acting,
    JsonBody(input): JsonBody<RotateKey>,
) -> Result<(StatusCode, Json<KeyOnce>), Problem> {
    Ok((StatusCode::CREATED, Json(control.rotate_key(&by, Some(&tenant), id, input).await?)))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(id): Named<KeyId>,
    Acting(control): Acting,
) -> Result<StatusCode, Problem> {
    control.remove_key(&tenant, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::http) async fn list_operator(_: Operator, State(site): State<Site>) -> Json<Items<KeyView>> {
    items(site.control.list_operator_keys())
}

pub(in crate::http) async fn create_operator(
    _: Operator,
    Caller(by): Caller,
    Acting(control): Acting,
    JsonBody(new): JsonBody<NewKey>,
) -> Result<(StatusCode, Json<KeyOnce>), Problem> {
    Ok((StatusCode::CREATED, Json(control.create_operator_key(&by, new).await?)))
}

pub(in crate::http) async fn show_operator(
    _: Operator,
    Named(id): Named<KeyId>,
    State(site): State<Site>,
) -> Result<Json<KeyView>, Problem> {
    Ok(Json(site.control.show_key(None, id)?))
}

pub(in crate::http) async fn label_operator(
    _: Operator,
    Named(id): Named<KeyId>,
    Acting(control): Acting,
    JsonBody(change): JsonBody<KeyChange>,
) -> Result<Json<KeyView>, Problem> {
    Ok(Json(control.label_key(None, id, change).await?))
}

pub(in crate::http) async fn rotate_operator(
    _: Operator,
    Caller(by): Caller,
    Named(id): Named<KeyId>,
    Acting(control): Acting,
    JsonBody(input): JsonBody<RotateKey>,
) -> Result<(StatusCode, Json<KeyOnce>), Problem> {
    Ok((StatusCode::CREATED, Json(control.rotate_key(&by, None, id, input).await?)))
}

pub(in crate::http) async fn remove_operator(
    _: Operator,
    Named(id): Named<KeyId>,
    Acting(control): Acting,
) -> Result<StatusCode, Problem> {
    control.remove_operator_key(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
