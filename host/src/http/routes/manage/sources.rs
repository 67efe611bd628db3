use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use setgate_domain::id::SourceName;

use super::{Tagged, path_of};
use crate::control::Page;
use crate::control::sources::{SourceInput, SourceView, Sources};
use crate::http::auth::{RequestActor, Tenant};
use crate::http::extract::{IfMatch, JsonBody, Named};
use crate::http::openapi::{Operation, delete, get, put};
use crate::http::page::Paging;
use crate::http::problem::Problem;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/sources", "listSources", "Lists sources by name.", list)
            .responds::<Page<SourceView>>(200, "A page of sources."),
        get("/sources/{source}", "showSource", "Shows one source without its secrets.", show)
            .responds::<SourceView>(200, "The source.")
            .tagged(),
        put("/sources/{source}", "putSource", "Creates or replaces a source.", put_source)
            .responds::<SourceView>(200, "The source is replaced.")
            .responds::<SourceView>(201, "The source is created.")
            .tagged()
            .errors([409, 412, 422]),
        delete("/sources/{source}", "removeSource", "Removes a source. Its events remain.", remove)
            .responds_empty(204, "Removed.")
            .errors([412]),
    ]
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    paging: Paging,
    State(sources): State<Sources>,
) -> Result<Json<Page<SourceView>>, Problem> {
    Ok(paging.answer(sources.list(&tenant, &paging.query)?))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(name): Named<SourceName>,
    State(sources): State<Sources>,
) -> Result<Tagged<SourceView>, Problem> {
    Ok(Tagged(sources.show(&tenant, &name)?))
}

pub(in crate::http) async fn put_source(
    Tenant(tenant): Tenant,
    Named(name): Named<SourceName>,
    RequestActor(actor): RequestActor,
    State(sources): State<Sources>,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<SourceInput>,
) -> Result<Response, Problem> {
    let (view, is_new) = sources.put(&actor, &tenant, &name, input, expected).await?;
    Ok(super::put(is_new, &path_of(&tenant, format_args!("/sources/{name}")), view))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(name): Named<SourceName>,
    RequestActor(actor): RequestActor,
    State(sources): State<Sources>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    sources.remove(&actor, &tenant, &name, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
