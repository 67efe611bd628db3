use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use setgate_domain::tenant;

use super::{Tagged, made, path_of};
use crate::control::Page;
use crate::control::tenants::{NewTenant, TenantChange, TenantShown, Tenants};
use crate::http::auth::{Operator, RequestActor, Tenant};
use crate::http::extract::{IfMatch, JsonBody};
use crate::http::openapi::{Operation, delete, get, patch, post};
use crate::http::page::Paging;
use crate::http::problem::Problem;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("", "showTenant", "Shows the tenant and its quota.", show)
            .responds::<TenantShown>(200, "The tenant.")
            .tagged(),
        patch("", "changeTenant", "Changes the label or the quota of a tenant. Operator only.", change)
            .responds::<TenantShown>(200, "The updated tenant.")
            .tagged()
            .errors([409, 422]),
        delete("", "removeTenant", "Removes a tenant with all of its data.", remove)
            .description("This includes events and history.")
            .responds_empty(204, "Removed.")
            .errors([409, 412]),
    ]
}

/// The routes that are reserved for the operator.
pub(in crate::http) fn of_operator() -> Vec<Operation> {
    vec![
        get("/api/v1/tenants", "listTenants", "Lists tenants by name.", list)
            .responds::<Page<tenant::Tenant>>(200, "A page of tenants."),
        post("/api/v1/tenants", "createTenant", "Creates a tenant.", create)
            .responds::<TenantShown>(201, "The tenant is created.")
            .tagged()
            .errors([409, 422]),
    ]
}

pub(in crate::http) async fn list(
    _: Operator,
    paging: Paging,
    State(tenants): State<Tenants>,
) -> Result<Json<Page<tenant::Tenant>>, Problem> {
    Ok(paging.answer(tenants.list(&paging.query)?))
}

pub(in crate::http) async fn create(
    _: Operator,
    RequestActor(actor): RequestActor,
    State(tenants): State<Tenants>,
    JsonBody(new): JsonBody<NewTenant>,
) -> Result<Response, Problem> {
    let shown = tenants.create(&actor, new).await?;
    Ok(made(&path_of(&shown.tenant.id, format_args!("")), shown))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    State(tenants): State<Tenants>,
) -> Result<Tagged<TenantShown>, Problem> {
    Ok(Tagged(tenants.show(&tenant)?))
}

pub(in crate::http) async fn change(
    _: Operator,
    Tenant(tenant): Tenant,
    RequestActor(actor): RequestActor,
    State(tenants): State<Tenants>,
    IfMatch(expected): IfMatch,
    JsonBody(change): JsonBody<TenantChange>,
) -> Result<Tagged<TenantShown>, Problem> {
    Ok(Tagged(tenants.change(&actor, &tenant, change, expected).await?))
}

pub(in crate::http) async fn remove(
    _: Operator,
    Tenant(tenant): Tenant,
    RequestActor(actor): RequestActor,
    State(tenants): State<Tenants>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    tenants.remove(&actor, &tenant, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
