use axum::Json;
use axum::extract::{Request, State};
use http::{StatusCode, header};
use serde::Deserialize;

use super::{ActivateInput, Items, items};
use crate::control::filters::FilterView;
use crate::domain::id::{Digest, FilterName};
use crate::http::Site;
use crate::http::auth::Tenant;
use crate::http::extract::{JsonBody, Named, Query, read};
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
) -> Result<Json<FilterView>, Problem> {
    Ok(Json(site.control.show_filter(&tenant, &name)?))
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
    State(site): State<Site>,
    request: Request,
) -> Result<(StatusCode, Json<FilterView>), Problem> {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !matches!(media_type, Some("application/wasm" | "application/octet-stream")) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send the component itself as `content-type: application/wasm`",
        ));
    }
    let (wasm, _room) = read(&site.uploads, Some(&tenant), request, site.filter_bytes_max, "the filter").await?;
    let (view, new) = site.control.upload_filter(&tenant, name, wasm, query.activate).await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(view)))
}

pub(in crate::http) async fn activate(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(site): State<Site>,
    JsonBody(input): JsonBody<ActivateInput>,
) -> Result<Json<FilterView>, Problem> {
    Ok(Json(site.control.activate_filter(&tenant, &name, input.digest).await?))
}

pub(in crate::http) async fn roll_back(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(site): State<Site>,
) -> Result<Json<FilterView>, Problem> {
    Ok(Json(site.control.roll_back_filter(&tenant, &name).await?))
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
    State(site): State<Site>,
    JsonBody(input): JsonBody<ResumeInput>,
) -> Result<Json<FilterView>, Problem> {
    Ok(Json(site.control.resume_filter(&tenant, &name, input.digest).await?))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(site): State<Site>,
) -> Result<StatusCode, Problem> {
    site.control.remove_filter(&tenant, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
