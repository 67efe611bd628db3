use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use setgate_domain::id::{DeliveryId, Digest, FilterName, TableName};
use setgate_domain::reproduction::Reproduction;

use crate::control;
use crate::control::downloads::{Downloads, PART_BYTES, Stored};
use crate::control::keys::{Access, Grant};
use crate::control::reproduction::{Reproduced, Reproductions};
use crate::http::auth::{self, Tenant};
use crate::http::extract::{IfNoneMatch, Named};
use crate::http::openapi::{Operation, get, post};
use crate::http::problem::Problem;
use crate::http::responses::{GrantedBody, SelfManaged, revoked_meanwhile};
use crate::http::state::SharedState;

/// See [`crate::http::routes`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get(
            "/deliveries/{delivery}/reproduction",
            "showReproduction",
            "Shows all inputs that determined the bytes of a delivery.",
            bundle,
        )
        .description("Everything that is needed to run its chain elsewhere. Secrets are listed by name only.")
        .responds::<Reproduction>(200, "Event, chain, limits, tables and the recorded results."),
        post(
            "/deliveries/{delivery}/reproduce",
            "reproduceDelivery",
            "Runs the chain of a delivery again and compares the results.",
            reproduce,
        )
        .description("Does not store or send anything.")
        .responds::<Reproduced>(200, "Whether the results are identical."),
        get(
            "/filters/{filter}/versions/{digest}",
            "downloadFilter",
            "Downloads the component of a filter version.",
            component,
        )
        .responds_bytes(200, "application/wasm", "The bytes as uploaded.")
        .tagged()
        .errors([429]),
        get(
            "/tables/{table}/versions/{digest}",
            "downloadTable",
            "Downloads the rows of a table version as JSON lines.",
            rows,
        )
        .responds_bytes(200, "application/jsonl", "The rows as stored.")
        .tagged()
        .errors([429]),
    ]
}

pub(in crate::http) async fn bundle(
    Tenant(tenant): Tenant,
    Named(id): Named<DeliveryId>,
    State(reproductions): State<Reproductions>,
) -> Result<Json<Reproduction>, Problem> {
    Ok(Json(reproductions.show(&tenant, id).await?))
}

pub(in crate::http) async fn reproduce(
    Tenant(tenant): Tenant,
    Named(id): Named<DeliveryId>,
    State(reproductions): State<Reproductions>,
    State(access): State<Access>,
    auth::Granted(grant): auth::Granted,
) -> Result<Json<Reproduced>, Problem> {
    let reproduced = reproductions.reproduce(&tenant, id).await?;
    access.still_holds(&grant).map_err(revoked_meanwhile)?;
    Ok(Json(reproduced))
}

pub(in crate::http) async fn component(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    Named(digest): Named<Digest>,
    State(downloads): State<Downloads>,
    State(app): State<SharedState>,
    known: IfNoneMatch,
    auth::Granted(grant): auth::Granted,
) -> Result<Response, Problem> {
    let stored = downloads.component(&tenant, &name, digest).await?;
    give(&app, downloads, grant, stored, "application/wasm", &known)
}

pub(in crate::http) async fn rows(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    Named(digest): Named<Digest>,
    State(downloads): State<Downloads>,
    State(app): State<SharedState>,
    known: IfNoneMatch,
    auth::Granted(grant): auth::Granted,
) -> Result<Response, Problem> {
    let stored = downloads.table_rows(&tenant, &name, digest).await?;
    give(&app, downloads, grant, stored, "application/jsonl", &known)
}

/// Answers with stored bytes, which are immutable because they are addressed by digest.
fn give(
    app: &SharedState,
    downloads: Downloads,
    grant: Grant,
    stored: Stored,
    media_type: &str,
    known: &IfNoneMatch,
) -> Result<Response, Problem> {
    let tag = format!("\"{}\"", stored.digest);
    if known.has(&tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    // One part is sent while the next one is read, so at most two are in memory.
    let weight = usize::try_from(stored.bytes).unwrap_or(usize::MAX).min(2 * PART_BYTES);
    let budget = app.responses.take(Some(grant.tenant()), weight)?;
    let length = (header::CONTENT_LENGTH, stored.bytes.to_string());
    let parts = futures_util::stream::try_unfold((0, budget), move |(number, budget)| {
        let (downloads, stored) = (downloads.clone(), stored.clone());
        async move {
            let part = downloads.read_part(&stored, number).await?;
            Ok::<_, control::Error>((!part.is_empty()).then_some((part, (number + 1, budget))))
        }
    });
    let body = GrantedBody { body: Body::from_stream(parts), app: app.clone(), grant: Some(grant) };
    let headers = [(header::CONTENT_TYPE, media_type.to_owned()), (header::ETAG, tag), length];
    let mut response = (headers, Body::new(body)).into_response();
    response.extensions_mut().insert(SelfManaged::Stream);
    Ok(response)
}
