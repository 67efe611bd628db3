use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use setgate_domain::id::{KeyId, TenantId};

use super::{Tagged, made, path_of};
use crate::control::Page;
use crate::control::keys::{KeyChange, KeyOnce, KeyView, Keys, NewKey, RotateKey};
use crate::http::auth::{Caller, Operator, RequestActor, Tenant};
use crate::http::extract::{IfMatch, JsonBody, Named};
use crate::http::openapi::{Operation, delete, get, patch, post};
use crate::http::page::Paging;
use crate::http::problem::Problem;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/keys", "listKeys", "Lists the tenant's keys, oldest first.", list)
            .responds::<Page<KeyView>>(200, "A page of keys."),
        post("/keys", "createKey", "Creates a key. Its secret is shown only once.", create)
            .description("A key of the tenant cannot grant more scopes or a later expiry than it has itself.")
            .responds::<KeyOnce>(201, "The key with its secret.")
            .tagged()
            .errors([409, 422]),
        get("/keys/{key}", "showKey", "Shows one key without its secret.", show)
            .responds::<KeyView>(200, "The key.")
            .tagged(),
        patch("/keys/{key}", "labelKey", "Changes the label of a key.", label)
            .responds::<KeyView>(200, "The updated key.")
            .tagged()
            .errors([422]),
        post(
            "/keys/{key}/rotate",
            "rotateTenantKey",
            "Creates a replacement for a key, which expires after the overlap.",
            rotate,
        )
        .responds::<KeyOnce>(201, "The new key with its secret, which is shown only once.")
        .tagged()
        .errors([409, 422]),
        delete("/keys/{key}", "removeKey", "Revokes a key immediately.", remove).responds_empty(204, "Revoked."),
    ]
}

/// The routes of the operator's own keys.
pub(in crate::http) fn of_operator() -> Vec<Operation> {
    vec![
        get("/api/v1/keys", "listOperatorKeys", "Lists the operator's keys, oldest first.", list_operator)
            .responds::<Page<KeyView>>(200, "A page of keys."),
        post(
            "/api/v1/keys",
            "createOperatorKey",
            "Creates an operator key. Its secret is shown only once.",
            create_operator,
        )
        .responds::<KeyOnce>(201, "The key with its secret.")
        .tagged()
        .errors([409, 422]),
        get("/api/v1/keys/{key}", "showOperatorKey", "Shows one operator key without its secret.", show_operator)
            .responds::<KeyView>(200, "The key.")
            .tagged(),
        patch("/api/v1/keys/{key}", "labelOperatorKey", "Changes the label of a key.", label_operator)
            .responds::<KeyView>(200, "The updated key.")
            .tagged()
            .errors([422]),
        post(
            "/api/v1/keys/{key}/rotate",
            "rotateOperatorKey",
            "Creates a replacement for a key, which expires after the overlap.",
            rotate_operator,
        )
        .responds::<KeyOnce>(201, "The new key with its secret, which is shown only once.")
        .tagged()
        .errors([409, 422]),
        delete("/api/v1/keys/{key}", "removeOperatorKey", "Revokes an operator key immediately.", remove_operator)
            .description("At least one operator key without an expiry must remain.")
            .responds_empty(204, "Revoked.")
            .errors([409, 412]),
    ]
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    paging: Paging,
    State(keys): State<Keys>,
) -> Result<Json<Page<KeyView>>, Problem> {
    Ok(paging.answer(keys.list(&tenant, &paging.query)?))
}

pub(in crate::http) async fn create(
    Tenant(tenant): Tenant,
    Caller(by): Caller,
    RequestActor(actor): RequestActor,
    State(keys): State<Keys>,
    JsonBody(new): JsonBody<NewKey>,
) -> Result<Response, Problem> {
    Ok(made_key(Some(&tenant), keys.create(&actor, &by, &tenant, new).await?))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(id): Named<KeyId>,
    State(keys): State<Keys>,
) -> Result<Tagged<KeyView>, Problem> {
    Ok(Tagged(keys.show(Some(&tenant), id)?))
}

pub(in crate::http) async fn label(
    Tenant(tenant): Tenant,
    Named(id): Named<KeyId>,
    RequestActor(actor): RequestActor,
    State(keys): State<Keys>,
    IfMatch(expected): IfMatch,
    JsonBody(change): JsonBody<KeyChange>,
) -> Result<Tagged<KeyView>, Problem> {
    Ok(Tagged(keys.label(&actor, Some(&tenant), id, change, expected).await?))
}

pub(in crate::http) async fn rotate(
    Tenant(tenant): Tenant,
    Caller(by): Caller,
    Named(id): Named<KeyId>,
    RequestActor(actor): RequestActor,
    State(keys): State<Keys>,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<RotateKey>,
) -> Result<Response, Problem> {
    Ok(made_key(Some(&tenant), keys.rotate(&actor, &by, Some(&tenant), id, input, expected).await?))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(id): Named<KeyId>,
    RequestActor(actor): RequestActor,
    State(keys): State<Keys>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    keys.remove(&actor, &tenant, id, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::http) async fn list_operator(
    _: Operator,
    paging: Paging,
    State(keys): State<Keys>,
) -> Result<Json<Page<KeyView>>, Problem> {
    Ok(paging.answer(keys.list_of_operator(&paging.query)?))
}

pub(in crate::http) async fn create_operator(
    _: Operator,
    Caller(by): Caller,
    RequestActor(actor): RequestActor,
    State(keys): State<Keys>,
    JsonBody(new): JsonBody<NewKey>,
) -> Result<Response, Problem> {
    Ok(made_key(None, keys.create_for_operator(&actor, &by, new).await?))
}

pub(in crate::http) async fn show_operator(
    _: Operator,
    Named(id): Named<KeyId>,
    State(keys): State<Keys>,
) -> Result<Tagged<KeyView>, Problem> {
    Ok(Tagged(keys.show(None, id)?))
}

pub(in crate::http) async fn label_operator(
    _: Operator,
    Named(id): Named<KeyId>,
    RequestActor(actor): RequestActor,
    State(keys): State<Keys>,
    IfMatch(expected): IfMatch,
    JsonBody(change): JsonBody<KeyChange>,
) -> Result<Tagged<KeyView>, Problem> {
    Ok(Tagged(keys.label(&actor, None, id, change, expected).await?))
}

pub(in crate::http) async fn rotate_operator(
    _: Operator,
    Caller(by): Caller,
    Named(id): Named<KeyId>,
    RequestActor(actor): RequestActor,
    State(keys): State<Keys>,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<RotateKey>,
) -> Result<Response, Problem> {
    Ok(made_key(None, keys.rotate(&actor, &by, None, id, input, expected).await?))
}

pub(in crate::http) async fn remove_operator(
    _: Operator,
    Named(id): Named<KeyId>,
    RequestActor(actor): RequestActor,
    State(keys): State<Keys>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    keys.remove_of_operator(&actor, id, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The answer with a newly created key and its path. It is the operator's key if `tenant` is `None`.
fn made_key(tenant: Option<&TenantId>, once: KeyOnce) -> Response {
    let id = once.view.id;
    let path = match tenant {
        Some(tenant) => path_of(tenant, format_args!("/keys/{id}")),
        None => format!("/api/v1/keys/{id}"),
    };
    made(&path, once)
}
