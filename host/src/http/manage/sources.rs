use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::{Items, items};
use crate::control::sources::{SourceInput, SourceView};
use crate::domain::id::SourceName;
use crate::http::Site;
use crate::http::auth::Tenant;
use crate::http::extract::{JsonBody, Named};
use crate::http::problem::Problem;

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    State(site): State<Site>,
) -> Result<Json<Items<SourceView>>, Problem> {
    Ok(items(site.control.list_sources(&tenant)?))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(name): Named<SourceName>,
    State(site): State<Site>,
) -> Result<Json<SourceView>, Problem> {
    Ok(Json(site.control.show_source(&tenant, &name)?))
}

pub(in crate::http) async fn put(
    Tenant(tenant): Tenant,
    Named(name): Named<SourceName>,
    State(site): State<Site>,
    JsonBody(input): JsonBody<SourceInput>,
) -> Result<(StatusCode, Json<SourceView>), Problem> {
    let (view, new) = site.control.put_source(&tenant, name, input).await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(view)))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(name): Named<SourceName>,
    State(site): State<Site>,
) -> Result<StatusCode, Problem> {
    site.control.remove_source(&tenant, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
