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

use super::{ActivateInput, path_of, tagged};
use crate::control::Page;
use crate::control::tables::{TableVersionView, TableView};
use crate::http::Site;
use crate::http::auth::{Acting, Tenant};
use crate::http::extract::{Arrived, IfMatch, JsonBody, Named, Query, check_text, read};
use crate::http::operations::{Operation, delete, get, post, put};
use crate::http::page::Paging;
use crate::http::problem::{Code, Problem};

/// See [`crate::http::operations`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/tables", "listTables", "Lists tables with their versions, by name.", list)
            .gives::<Page<TableView>>(200, "A page of tables."),
        get("/tables/{table}", "showTable", "Shows one table with its versions.", show).gives::<TableView>(200, "The table.").tagged(),
        put("/tables/{table}", "putTable", "Uploads all rows of a table as its active version.", put_table)
            .says("Identical rows are the same version. Pending deliveries keep the version that they started with.")
            .takes(MEDIA_TYPES, "JSON lines of `{\"key\": \"...\", \"value\": ...}`, or CSV with a header.")
            .like("application/jsonl", json!("{\"key\":\"a1\",\"value\":{\"name\":\"Shop\"}}\n"))
            .like("application/json", json!({"key": "a1", "value": {"name": "Shop"}}))
            .like("text/csv", json!("key,name\na1,Shop\n"))
            .gives::<TableView>(200, "The version already existed and is active.")
            .gives::<TableView>(201, "The version is new and is active.").tagged()
            .refuses([409, 412, 422]),
        post("/tables/{table}/activate", "activateTable", "Activates a version for new deliveries.", activate)
            .gives::<TableView>(200, "The version is active.").tagged()
            .refuses([409, 412]),
        post("/tables/{table}/rollback", "rollBackTable", "Activates the previous version again.", roll_back)
            .gives::<TableView>(200, "The previous version is active.").tagged()
            .refuses([409, 412]),
        get("/tables/{table}/versions", "listTableVersions", "Lists the versions of a table, oldest first.", list_versions)
            .gives::<Page<TableVersionView>>(200, "A page of versions."),
        delete("/tables/{table}/versions/{digest}", "removeTableVersion", "Removes an unused version.", remove_version)
            .says("Refused if the version is active, the target of a rollback, or needed to reproduce a delivery of the history.")
            .gives_nothing(204, "Removed.")
            .refuses([409, 412]),
        delete("/tables/{table}", "removeTable", "Removes a table. Pending deliveries can still read it.", remove)
            .gives_nothing(204, "Removed.")
            .refuses([412]),
    ]
}

pub(in crate::http) async fn list(
    Tenant(tenant): Tenant,
    paging: Paging,
    State(site): State<Site>,
) -> Result<Json<Page<TableView>>, Problem> {
    Ok(paging.answer(site.control.list_tables(&tenant, paging.query.clone())?))
}

pub(in crate::http) async fn show(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    State(site): State<Site>,
) -> Result<Response, Problem> {
    let view = site.control.show_table(&tenant, &name)?;
    Ok(tagged(StatusCode::OK, view.version, view))
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
    Acting(control): Acting,
    State(site): State<Site>,
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
    let Arrived { body: rows, room: _room, .. } =
        read(&site, &site.uploads, Some(&tenant), request, site.table_bytes_max(), "the table").await?;
    let path = path_of(&tenant, format_args!("/tables/{name}"));
    let (view, is_new) = control.put_table(&tenant, name, rows, (format, delimiter), expected).await?;
    Ok(super::put(is_new, &path, view.version, view))
}

pub(in crate::http) async fn activate(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
    JsonBody(input): JsonBody<ActivateInput>,
) -> Result<Response, Problem> {
    let view = control.activate_table(&tenant, &name, input.digest, expected).await?;
    Ok(tagged(StatusCode::OK, view.version, view))
}

pub(in crate::http) async fn roll_back(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<Response, Problem> {
    let view = control.roll_back_table(&tenant, &name, expected).await?;
    Ok(tagged(StatusCode::OK, view.version, view))
}

pub(in crate::http) async fn remove(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    control.remove_table(&tenant, &name, expected).await?;
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
    State(site): State<Site>,
) -> Result<Json<Page<TableVersionView>>, Problem> {
    Ok(paging.answer(site.control.list_table_versions(&tenant, &name, paging.query.clone())?))
}

pub(in crate::http) async fn remove_version(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    Named(digest): Named<Digest>,
    Acting(control): Acting,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Problem> {
    control.remove_table_version(&tenant, &name, digest, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}
