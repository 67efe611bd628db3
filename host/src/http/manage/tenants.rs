use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::{Items, items};
use crate::control::tenants::NewTenant;
use crate::domain::tenant;
use crate::http::Site;
use crate::http::auth::{Operator, Tenant};
use crate::http::extract::JsonBody;
use crate::http::problem::Problem;

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
