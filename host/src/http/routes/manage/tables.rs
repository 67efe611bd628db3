use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use setgate_domain::filter::TableFormat;
use setgate_domain::id::{Digest, TableName};
use setgate_domain::table::Delimiter;

use super::{ActivateInput, Tagged, path_of};
use crate::control::Page;
use crate::control::tables::{TableVersionView, TableView, Tables};
use crate::http::auth::{RequestActor, Tenant};
use crate::http::extract::{IfMatch, JsonBody, Named, Query, ReadBody, check_text, read};
use crate::http::openapi::{Operation, delete, get, post, put};
use crate::http::page::Paging;
use crate::http::problem::{Code, Problem};
use crate::http::state::SharedState;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/tables", "listTables", "Lists tables with their versions, by name.", list)
            .responds::<Page<TableView>>(200, "A page of tables."),
        get("/tables/{table}", "showTable", "Shows one table with its versions.", show).responds::<TableView>(200, "The table.").tagged(),
        put("/tables/{table}", "putTable", "Uploads all rows of a table as its active version.", put_table)
            .description("Identical rows are the same version. Pending deliveries keep the version that they started with.")
            .accepts(MEDIA_TYPES, "JSON lines of `{\"key\": \"...\", \"value\": ...}`, or CSV with a header.")
            .example("application/jsonl", json!("{\"key\":\"a1\",\"value\":{\"name\":\"Shop\"}}\n"))
            .example("application/json", json!({"key": "a1", "value": {"name": "Shop"}}))
            .example("text/csv", json!("key,name\na1,Shop\n"))
            .responds::<TableView>(200, "The version already existed and is active.")
            .responds::<TableView>(201, "The version is new and is active.").tagged()
            .errors([409, 412, 422]),
        post("/tables/{table}/activate", "activateTable", "Activates a version for new deliveries.", activate)
            .responds::<TableView>(200, "The version is active.").tagged()
            .errors([409, 412]),
        post("/tables/{table}/rollback", "rollBackTable", "Activates the previous version again.", roll_back)
            .responds::<TableView>(200, "The previous version is active.").tagged()
            .errors([409, 412]),
        get("/tables/{table}/versions", "listTableVersions", "Lists the versions of a table, oldest first.", list_versions)
            .responds::<Page<TableVersionView>>(200, "A page of versions."),
        delete("/tables/{table}/versions/{digest}", "removeTableVersion", "Removes an unused version.", remove_version)
            .description("Refused if the version is active, the target of a rollback, or needed to reproduce a delivery of the history.")
            .responds_empty(204, "Removed.")
            .errors([409, 412]),
        delete("/tables/{table}", "removeTable", "Removes a table. Pending deliveries can still read it.", remove)
            .responds_empty(204, "Removed.")
            .errors([412]),
    ]
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    paging: Paging,
    State(tables): State<Tables>,
) -> Result<Json<Page<TableView>>, Problem> {
    Ok(paging.answer(tables.list(&tenant, &paging.query)?))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    State(tables): State<Tables>,
) -> Result<Tagged<TableView>, Problem> {
    Ok(Tagged(tables.show(&tenant, &name)?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PutQuery {
    /// Column separator of a CSV: `,`, `;`, `|` or `tab`. Absent: a comma, unless the header suggests another one.
    delimiter: Option<String>,
}

pub(in crate::http) async fn put_table(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    RequestActor(actor): RequestActor,
    State(app): State<SharedState>,
    Query(query): Query<PutQuery>,
    IfMatch(expected): IfMatch,
    request: Request,
) -> Result<Response, Problem> {
    let format = format(&request)?;
    let delimiter = query.delimiter.map(|given| given.parse::<Delimiter>()).transpose();
    let delimiter = delimiter.map_err(|why| Problem::new(Code::InvalidQuery, why))?;
    if delimiter.is_some() && format != TableFormat::Csv {
        let why = "`delimiter` is only valid with `content-type: text/csv`";
        return Err(Problem::new(Code::InvalidQuery, why));
    }
    let ReadBody { body: rows, budget: _budget, .. } =
        read(&app, &app.uploads, Some(&tenant), request, app.table_bytes_max(), "the table").await?;
    let path = path_of(&tenant, format_args!("/tables/{name}"));
    let (view, is_new) = app.control.tables.put(&actor, &tenant, name, rows, (format, delimiter), expected).await?;
    Ok(super::put(is_new, &path, view))
}

pub(in crate::http) async fn activate(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    RequestActor(actor): RequestActor,
    State(tables): State<Tables>,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<ActivateInput>,
) -> Result<Tagged<TableView>, Problem> {
    Ok(Tagged(tables.activate(&actor, &tenant, &name, input.digest, expected).await?))
}

pub(in crate::http) async fn roll_back(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    RequestActor(actor): RequestActor,
    State(tables): State<Tables>,
    IfMatch(expected): IfMatch,
) -> Result<Tagged<TableView>, Problem> {
    Ok(Tagged(tables.roll_back(&actor, &tenant, &name, expected).await?))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    RequestActor(actor): RequestActor,
    State(tables): State<Tables>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    tables.remove(&actor, &tenant, &name, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The media types that [`format`] accepts.
const MEDIA_TYPES: &[&str] = &[
    "application/jsonl",
    "text/csv",
    "application/x-ndjson",
    "application/ndjson",
    "application/json",
    "application/octet-stream",
    "text/plain",
];

/// The table format, by media type. A request without one is refused: a request whose body was lost would otherwise
/// empty the table.
fn format(request: &Request) -> Result<TableFormat, Problem> {
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|given| given.to_str().ok());
    check_text(given.unwrap_or_default(), request.headers())?;
    let essence = given.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/csv" => Ok(TableFormat::Csv),
        "application/jsonl"
        | "application/x-ndjson"
        | "application/ndjson"
        | "application/json"
        | "application/octet-stream"
        | "text/plain" => Ok(TableFormat::JsonLines),
        _ => Err(Problem::new(
            Code::UnsupportedMediaType,
            "send the rows as `content-type: application/jsonl` or `text/csv`",
        )),
    }
}

pub(in crate::http) async fn list_versions(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    paging: Paging,
    State(tables): State<Tables>,
) -> Result<Json<Page<TableVersionView>>, Problem> {
    Ok(paging.answer(tables.list_versions(&tenant, &name, &paging.query)?))
}

pub(in crate::http) async fn remove_version(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    Named(digest): Named<Digest>,
    RequestActor(actor): RequestActor,
    State(tables): State<Tables>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    tables.remove_version(&actor, &tenant, &name, digest, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
