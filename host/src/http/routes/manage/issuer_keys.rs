use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use setgate_domain::id::IssuerKeyId;

use super::{Tagged, made, path_of};
use crate::control::Page;
use crate::control::issuer_keys::{IssuerKeyView, IssuerKeys, NewIssuerKey};
use crate::http::auth::{RequestActor, Tenant};
use crate::http::extract::{IfMatch, JsonBody, Named};
use crate::http::openapi::{Operation, delete, get, post};
use crate::http::page::Paging;
use crate::http::problem::Problem;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/issuer-keys", "listIssuerKeys", "Lists issuer keys by id.", list)
            .responds::<Page<IssuerKeyView>>(200, "A page of keys."),
        post("/issuer-keys", "createIssuerKey", "Generates or imports an issuer key.", create)
            .description(
                "The first key of an algorithm signs at once. A later one is in the JWKS for ten minutes before it signs, \
                 unless it is activated. The tenant's first key fixes its issuer.",
            )
            .responds::<IssuerKeyView>(201, "The key without its private half.")
            .tagged()
            .errors([409, 422, 429]),
        get("/issuer-keys/{kid}", "showIssuerKey", "Shows one issuer key.", show)
            .responds::<IssuerKeyView>(200, "The key without its private half.")
            .tagged(),
        post("/issuer-keys/{kid}/activate", "activateIssuerKey", "Lets a key sign from now on.", activate)
            .description("The key that signed until now is retired. Receivers may not have the new key in their caches yet.")
            .responds::<IssuerKeyView>(200, "The key, which signs.")
            .tagged()
            .errors([409, 412]),
        delete("/issuer-keys/{kid}", "removeIssuerKey", "Removes an issuer key and its private half.", remove)
            .description(
                "Refused for a key that signs, for ten minutes after it stopped, and while SETs that it signed are stored.",
            )
            .responds_empty(204, "Removed.")
            .errors([409, 412]),
    ]
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    paging: Paging,
    State(keys): State<IssuerKeys>,
) -> Result<Json<Page<IssuerKeyView>>, Problem> {
    Ok(paging.answer(keys.list(&tenant, &paging.query)?))
}

pub(in crate::http) async fn create(
    Tenant(tenant): Tenant,
    RequestActor(actor): RequestActor,
    State(keys): State<IssuerKeys>,
    JsonBody(new): JsonBody<NewIssuerKey>,
) -> Result<Response, Problem> {
    let key = keys.create(&actor, &tenant, new).await?;
    Ok(made(&path_of(&tenant, format_args!("/issuer-keys/{}", key.kid)), key))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(kid): Named<IssuerKeyId>,
    State(keys): State<IssuerKeys>,
) -> Result<Tagged<IssuerKeyView>, Problem> {
    Ok(Tagged(keys.show(&tenant, &kid)?))
}

pub(in crate::http) async fn activate(
    Tenant(tenant): Tenant,
    Named(kid): Named<IssuerKeyId>,
    RequestActor(actor): RequestActor,
    State(keys): State<IssuerKeys>,
    IfMatch(expected): IfMatch,
) -> Result<Tagged<IssuerKeyView>, Problem> {
    Ok(Tagged(keys.activate(&actor, &tenant, &kid, expected).await?))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(kid): Named<IssuerKeyId>,
    RequestActor(actor): RequestActor,
    State(keys): State<IssuerKeys>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    keys.remove(&actor, &tenant, &kid, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
