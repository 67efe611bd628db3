use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{StatusCode, header};
use serde::Deserialize;

use super::{ActivateInput, Items, items, tagged};
use crate::control::filters::FilterView;
use crate::domain::id::{Digest, FilterName};
use crate::http::Site;
use crate::http::auth::{Acting, Tenant};
use crate::http::extract::{IfMatch, JsonBody, Named, Query, read};
use crate::http::problem::Problem;

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    State(site): State<Site>,
) -> Result<Json<Items<FilterView>>, Problem> {
    Ok(items(site.control.list_filters(&tenant)?))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(site): State<Site>,
) -> Result<Response, Problem> {
    let view = site.control.show_filter(&tenant, &name)?;
    Ok(tagged(StatusCode::OK, view.version, view))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct UploadQuery {
    #[serde(default = "yes")]
    activate: bool,
}

fn yes() -> bool {
    true
}

pub(in crate::http) async fn upload(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    Query(query): Query<UploadQuery>,
    Acting(control): Acting,
    State(site): State<Site>,
    IfMatch(expected): IfMatch,
    request: Request,
) -> Result<Response, Problem> {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !matches!(media_type, Some("application/wasm" | "application/octet-stream")) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send the component itself as `content-type: application/wasm`",
        ));
    }
    let (wasm, _room) = read(&site.uploads, Some(&tenant), request, site.filter_bytes_max, "the filter").await?;
    let (view, new) = control.upload_filter(&tenant, name, wasm, query.activate, expected).await?;
    Ok(tagged(if new { StatusCode::CREATED } else { StatusCode::OK }, view.version, view))
}

pub(in crate::http) async fn activate(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<ActivateInput>,
) -> Result<Response, Problem> {
    let view = control.activate_filter(&tenant, &name, input.digest, expected).await?;
    Ok(tagged(StatusCode::OK, view.version, view))
}

pub(in crate::http) async fn roll_back(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<Response, Problem> {
    let view = control.roll_back_filter(&tenant, &name, expected).await?;
    Ok(tagged(StatusCode::OK, view.version, view))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ResumeInput {
    #[serde(default)]
    digest: Option<Digest>,
}

pub(in crate::http) async fn resume(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<ResumeInput>,
) -> Result<Response, Problem> {
    let view = control.resume_filter(&tenant, &name, input.digest, expected).await?;
    Ok(tagged(StatusCode::OK, view.version, view))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    control.remove_filter(&tenant, &name, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
