use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;
use setgate_domain::id::{Digest, FilterName};

use super::{ActivateInput, Tagged, path_of};
use crate::control::Page;
use crate::control::filters::{FilterView, Filters, VersionView};
use crate::http::auth::{RequestActor, Tenant};
use crate::http::coding;
use crate::http::extract::{IfMatch, JsonBody, Named, Query, ReadBody, read};
use crate::http::openapi::{Operation, delete, get, post, put};
use crate::http::page::Paging;
use crate::http::problem::{Code, Problem};
use crate::http::state::SharedState;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/filters", "listFilters", "Lists filters with their versions, by name.", list)
            .responds::<Page<FilterView>>(200, "A page of filters."),
        get("/filters/{filter}", "showFilter", "Shows one filter with its versions.", show)
            .responds::<FilterView>(200, "The filter.").tagged(),
        put("/filters/{filter}", "uploadFilter", "Uploads a component as the newest version of a filter.", upload)
            .description("The component is checked and compiled before it is stored. Identical bytes are the same version.")
            .accepts(&["application/wasm", "application/octet-stream"], "The WebAssembly component.")
            .responds::<FilterView>(200, "The version already existed.")
            .responds::<FilterView>(201, "The version is new.").tagged()
            .errors([409, 412, 422]),
        post("/filters/{filter}/activate", "activateFilter", "Activates a version for new deliveries.", activate)
            .responds::<FilterView>(200, "The version is active.").tagged()
            .errors([409, 412]),
        post(
            "/filters/{filter}/rollback",
            "rollBackFilter",
            "Activates the previous version again.",
            roll_back,
        )
        .description("This ends a rollout.")
        .responds::<FilterView>(200, "The previous version is active.").tagged()
        .errors([409, 412]),
        post("/filters/{filter}/resume", "resumeFilter", "Resumes suspended versions.", resume)
            .description("Resumes all suspended versions, or the given one. Deliveries that were held because of their faults run the chain again.")
            .responds::<FilterView>(200, "The versions are resumed.").tagged()
            .errors([409, 412]),
        get("/filters/{filter}/versions", "listFilterVersions", "Lists the versions of a filter, oldest first.", list_versions)
            .responds::<Page<VersionView>>(200, "A page of versions."),
        delete("/filters/{filter}/versions/{digest}", "removeFilterVersion", "Removes an unused version.", remove_version)
            .description("Refused if the version is active, in a rollout, the target of a rollback, or needed to reproduce a delivery of the history.")
            .responds_empty(204, "Removed.")
            .errors([409, 412]),
        delete("/filters/{filter}", "removeFilter", "Removes a filter that is not bound by any subscription.", remove)
            .responds_empty(204, "Removed.")
            .errors([409, 412]),
    ]
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    paging: Paging,
    State(filters): State<Filters>,
) -> Result<Json<Page<FilterView>>, Problem> {
    Ok(paging.answer(filters.list(&tenant, &paging.query)?))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    State(filters): State<Filters>,
) -> Result<Tagged<FilterView>, Problem> {
    Ok(Tagged(filters.show(&tenant, &name)?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct UploadQuery {
    /// Whether to activate the version for new deliveries at once.
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
    RequestActor(actor): RequestActor,
    State(app): State<SharedState>,
    IfMatch(expected): IfMatch,
    request: Request,
) -> Result<Response, Problem> {
    coding::none(request.headers())?;
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !matches!(media_type, Some("application/wasm" | "application/octet-stream")) {
        return Err(Problem::new(Code::UnsupportedMediaType, "send the component as `content-type: application/wasm`"));
    }
    let ReadBody { body: wasm, budget: _budget, .. } =
        read(&app, &app.uploads, Some(&tenant), request, app.filter_bytes_max(), "the filter").await?;
    let path = path_of(&tenant, format_args!("/filters/{name}"));
    let (view, is_new) = app.control.filters.upload(&actor, &tenant, name, wasm, query.activate, expected).await?;
    Ok(super::put(is_new, &path, view))
}

pub(in crate::http) async fn activate(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    RequestActor(actor): RequestActor,
    State(filters): State<Filters>,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<ActivateInput>,
) -> Result<Tagged<FilterView>, Problem> {
    Ok(Tagged(filters.activate(&actor, &tenant, &name, input.digest, expected).await?))
}

pub(in crate::http) async fn roll_back(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    RequestActor(actor): RequestActor,
    State(filters): State<Filters>,
    IfMatch(expected): IfMatch,
) -> Result<Tagged<FilterView>, Problem> {
    Ok(Tagged(filters.roll_back(&actor, &tenant, &name, expected).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ResumeInput {
    /// The version to resume. Absent: all suspended versions.
    #[serde(default)]
    digest: Option<Digest>,
}

pub(in crate::http) async fn resume(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    RequestActor(actor): RequestActor,
    State(filters): State<Filters>,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<ResumeInput>,
) -> Result<Tagged<FilterView>, Problem> {
    Ok(Tagged(filters.resume(&actor, &tenant, &name, input.digest, expected).await?))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    RequestActor(actor): RequestActor,
    State(filters): State<Filters>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    filters.remove(&actor, &tenant, &name, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::http) async fn list_versions(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    paging: Paging,
    State(filters): State<Filters>,
) -> Result<Json<Page<VersionView>>, Problem> {
    Ok(paging.answer(filters.list_versions(&tenant, &name, &paging.query)?))
}

pub(in crate::http) async fn remove_version(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    Named(digest): Named<Digest>,
    RequestActor(actor): RequestActor,
    State(filters): State<Filters>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    filters.remove_version(&actor, &tenant, &name, digest, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
