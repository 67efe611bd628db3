use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::{Items, items};
use crate::control::keys::{KeyChange, KeyOnce, KeyView, NewKey, RotateKey};
use crate::domain::id::KeyId;
use crate::http::Site;
use crate::http::auth::{Acting, Caller, Operator, Tenant};
use crate::http::extract::{JsonBody, Named};
use crate::http::operations::{Operation, delete, get, patch, post};
use crate::http::problem::Problem;

/// See [`crate::http::operations`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/keys", "listKeys", "The tenant's keys, oldest first.", list).gives::<Items<KeyView>>(200, "The keys."),
        post("/keys", "createKey", "Makes a key, which is shown this once.", create)
            .says("A tenant's own key gives at most what it may do itself, and for no longer.")
            .gives::<KeyOnce>(201, "The whole key.")
            .refuses([409, 422]),
        get("/keys/{key}", "showKey", "One key, without its secret.", show).gives::<KeyView>(200, "The key."),
        patch("/keys/{key}", "labelKey", "Changes what people call a key.", label)
            .gives::<KeyView>(200, "The key as it is now.")
            .refuses([422]),
        post(
            "/keys/{key}/rotate",
            "rotateTenantKey",
            "Makes a key in place of another, which ends after the overlap.",
            rotate,
        )
        .gives::<KeyOnce>(201, "The whole new key, shown this once.")
        .refuses([409, 422]),
        delete("/keys/{key}", "removeKey", "Ends a key at once.", remove).gives_nothing(204, "It is gone."),
    ]
}

/// The same for the operator's own.
pub(in crate::http) fn of_operator() -> Vec<Operation> {
    vec![
        get("/api/v1/keys", "listOperatorKeys", "The operator's keys, oldest first.", list_operator)
            .gives::<Items<KeyView>>(200, "The keys."),
        post("/api/v1/keys", "createOperatorKey", "Makes a key of the operator's.", create_operator)
            .gives::<KeyOnce>(201, "The whole key, shown this once.")
            .refuses([409, 422]),
        get("/api/v1/keys/{key}", "showOperatorKey", "One key of the operator's, without its secret.", show_operator)
            .gives::<KeyView>(200, "The key."),
        patch("/api/v1/keys/{key}", "labelOperatorKey", "Changes what people call a key.", label_operator)
            .gives::<KeyView>(200, "The key as it is now.")
            .refuses([422]),
        post(
            "/api/v1/keys/{key}/rotate",
            "rotateOperatorKey",
            "Makes a key in place of another, which ends after the overlap.",
            rotate_operator,
        )
        .gives::<KeyOnce>(201, "The whole new key, shown this once.")
        .refuses([409, 422]),
        delete("/api/v1/keys/{key}", "removeOperatorKey", "Ends a key of the operator's at once.", remove_operator)
            .says("One without an end has to remain.")
            .gives_nothing(204, "It is gone.")
            .refuses([409, 412]),
    ]
}

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
