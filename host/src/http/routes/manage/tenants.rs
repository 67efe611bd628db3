use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use setgate_domain::tenant;

use super::{made, path_of, tagged};
use crate::control::Page;
use crate::control::tenants::{NewTenant, TenantChange, TenantShown};
use crate::http::auth::{AsActor, Operator, Tenant};
use crate::http::extract::{IfMatch, JsonBody};
use crate::http::openapi::{Operation, delete, get, patch, post};
use crate::http::page::Paging;
use crate::http::problem::Problem;
use crate::http::state::SharedState;

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
    State(app): State<SharedState>,
) -> Result<Json<Page<tenant::Tenant>>, Problem> {
    Ok(paging.answer(app.control.list_tenants(paging.query.clone())?))
}

pub(in crate::http) async fn create(
    _: Operator,
    AsActor(control): AsActor,
    JsonBody(new): JsonBody<NewTenant>,
) -> Result<Response, Problem> {
    let shown = control.create_tenant(new).await?;
    Ok(made(&path_of(&shown.tenant.id, format_args!("")), shown.version, shown))
}

pub(in crate::http) async fn show(Tenant(tenant): Tenant, State(app): State<SharedState>) -> Result<Response, Problem> {
    let shown = app.control.show_tenant(&tenant)?;
    Ok(tagged(StatusCode::OK, shown.version, shown))
}

pub(in crate::http) async fn change(
    _: Operator,
    Tenant(tenant): Tenant,
    AsActor(control): AsActor,
    IfMatch(expected): IfMatch,
    JsonBody(change): JsonBody<TenantChange>,
) -> Result<Response, Problem> {
    let shown = control.change_tenant(&tenant, change, expected).await?;
    Ok(tagged(StatusCode::OK, shown.version, shown))
}

pub(in crate::http) async fn remove(
    _: Operator,
    Tenant(tenant): Tenant,
    AsActor(control): AsActor,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    control.remove_tenant(&tenant, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
