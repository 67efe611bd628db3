use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::{Items, items, tagged};
use crate::control::sources::{SourceInput, SourceView};
use crate::domain::id::SourceName;
use crate::http::Site;
use crate::http::auth::{Acting, Tenant};
use crate::http::extract::{IfMatch, JsonBody, Named};
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
) -> Result<Response, Problem> {
    let view = site.control.show_source(&tenant, &name)?;
    Ok(tagged(StatusCode::OK, view.version, view))
}

pub(in crate::http) async fn put(
    Tenant(tenant): Tenant,
    Named(name): Named<SourceName>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<SourceInput>,
) -> Result<Response, Problem> {
    let (view, new) = control.put_source(&tenant, &name, input, expected).await?;
    Ok(tagged(if new { StatusCode::CREATED } else { StatusCode::OK }, view.version, view))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(name): Named<SourceName>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    control.remove_source(&tenant, &name, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
