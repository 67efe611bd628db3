use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use setgate_domain::id::SourceName;

use super::{path_of, tagged};
use crate::control::Page;
use crate::control::sources::{SourceInput, SourceView};
use crate::http::Site;
use crate::http::auth::{Acting, Tenant};
use crate::http::extract::{IfMatch, JsonBody, Named};
use crate::http::operations::{Operation, delete, get, put};
use crate::http::page::Paging;
use crate::http::problem::Problem;

/// See [`crate::http::operations`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/sources", "listSources", "Lists sources by name.", list)
            .gives::<Page<SourceView>>(200, "A page of sources."),
        get("/sources/{source}", "showSource", "Shows one source without its secrets.", show)
            .gives::<SourceView>(200, "The source.")
            .tagged(),
        put("/sources/{source}", "putSource", "Creates or replaces a source.", put_source)
            .gives::<SourceView>(200, "The source is replaced.")
            .gives::<SourceView>(201, "The source is created.")
            .tagged()
            .refuses([409, 412, 422]),
        delete("/sources/{source}", "removeSource", "Removes a source. Its events remain.", remove)
            .gives_nothing(204, "Removed.")
            .refuses([412]),
    ]
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    paging: Paging,
    State(site): State<Site>,
) -> Result<Json<Page<SourceView>>, Problem> {
    Ok(paging.answer(site.control.list_sources(&tenant, paging.query.clone())?))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(name): Named<SourceName>,
    State(site): State<Site>,
) -> Result<Response, Problem> {
    let view = site.control.show_source(&tenant, &name)?;
    Ok(tagged(StatusCode::OK, view.version, view))
}

pub(in crate::http) async fn put_source(
    Tenant(tenant): Tenant,
    Named(name): Named<SourceName>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<SourceInput>,
) -> Result<Response, Problem> {
    let (view, is_new) = control.put_source(&tenant, &name, input, expected).await?;
    Ok(super::put(is_new, &path_of(&tenant, format_args!("/sources/{name}")), view.version, view))
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
