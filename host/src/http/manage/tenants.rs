use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::{Items, items};
use crate::control::tenants::NewTenant;
use crate::domain::tenant;
use crate::http::Site;
use crate::http::auth::{Operator, Tenant};
use crate::http::extract::JsonBody;
use crate::http::operations::{Operation, delete, get, post};
use crate::http::problem::Problem;

/// See [`crate::http::operations`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("", "showTenant", "The tenant and its quota.", show).gives::<tenant::Tenant>(200, "The tenant."),
        delete("", "removeTenant", "Removes a tenant with everything that is its own.", remove)
            .says("Events and history too.")
            .gives_nothing(204, "It is gone.")
            .refuses([409, 412]),
    ]
}

/// What is the operator's alone.
pub(in crate::http) fn of_operator() -> Vec<Operation> {
    vec![
        get("/api/v1/tenants", "listTenants", "All tenants, by name.", list)
            .gives::<Items<tenant::Tenant>>(200, "The tenants."),
        post("/api/v1/tenants", "createTenant", "Makes a tenant.", create)
            .gives::<tenant::Tenant>(201, "It is made.")
            .refuses([409, 422]),
    ]
}

pub(in crate::http) async fn list(_: Operator, State(site): State<Site>) -> Json<Items<tenant::Tenant>> {
    items(site.control.list_tenants())
}

pub(in crate::http) async fn create(
    _: Operator,
    State(site): State<Site>,
    JsonBody(new): JsonBody<NewTenant>,
) -> Result<(StatusCode, Json<tenant::Tenant>), Problem> {
    Ok((StatusCode::CREATED, Json(site.control.create_tenant(new).await?)))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    State(site): State<Site>,
) -> Result<Json<tenant::Tenant>, Problem> {
    Ok(Json(site.control.show_tenant(&tenant)?))
}

pub(in crate::http) async fn remove(
    _: Operator,
    Tenant(tenant): Tenant,
    State(site): State<Site>,
) -> Result<StatusCode, Problem> {
    site.control.remove_tenant(&tenant).await?;
    Ok(StatusCode::NO_CONTENT)
}
