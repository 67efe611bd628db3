use axum::Json;
use axum::extract::{Request, State};
use http::StatusCode;

use super::{Items, items};
use crate::control::tables::{TABLE_BYTES_MAX, TableView};
use crate::domain::id::TableName;
use crate::http::Site;
use crate::http::auth::Tenant;
use crate::http::extract::{Named, read};
use crate::http::problem::Problem;

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    State(site): State<Site>,
) -> Result<Json<Items<TableView>>, Problem> {
    Ok(items(site.control.list_tables(&tenant)?))
}

pub(in crate::http) async fn put(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    State(site): State<Site>,
    request: Request,
) -> Result<Json<TableView>, Problem> {
    let (rows, _room) = read(&site, request, TABLE_BYTES_MAX, "the table").await?;
    Ok(Json(site.control.put_table(&tenant, name, rows).await?))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    State(site): State<Site>,
) -> Result<StatusCode, Problem> {
    site.control.remove_table(&tenant, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
