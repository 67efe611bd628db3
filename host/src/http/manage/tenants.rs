use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::{Items, items, tagged};
use crate::control::tenants::{NewTenant, TenantChange};
use crate::domain::tenant;
use crate::http::Site;
use crate::http::auth::{Acting, Operator, Tenant};
use crate::http::extract::{IfMatch, JsonBody};
use crate::http::problem::Problem;

pub(in crate::http) async fn list(_: Operator, State(site): State<Site>) -> Json<Items<tenant::Tenant>> {
    items(site.control.list_tenants())
}

pub(in crate::http) async fn create(
    _: Operator,
    Acting(control): Acting,
    JsonBody(new): JsonBody<NewTenant>,
) -> Result<Response, Problem> {
    let shown = control.create_tenant(new).await?;
    Ok(tagged(StatusCode::CREATED, shown.version, shown))
}

pub(in crate::http) async fn show(Tenant(tenant): Tenant, State(site): State<Site>) -> Result<Response, Problem> {
    let shown = site.control.show_tenant(&tenant)?;
    Ok(tagged(StatusCode::OK, shown.version, shown))
}

pub(in crate::http) async fn change(
    _: Operator,
    Tenant(tenant): Tenant,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
    JsonBody(change): JsonBody<TenantChange>,
) -> Result<Response, Problem> {
    let shown = control.change_tenant(&tenant, change, expected).await?;
    Ok(tagged(StatusCode::OK, shown.version, shown))
}

pub(in crate::http) async fn remove(
    _: Operator,
    Tenant(tenant): Tenant,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    control.remove_tenant(&tenant, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
