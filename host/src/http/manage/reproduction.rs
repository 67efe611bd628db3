use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{StatusCode, header};

use crate::control::reproduction::{Reproduced, Stored};
use crate::domain::id::{DeliveryId, Digest, FilterName, TableName, TenantId};
use crate::domain::reproduction::Reproduction;
use crate::http::Site;
use crate::http::auth::Tenant;
use crate::http::extract::{IfNoneMatch, Named};
use crate::http::operations::{Operation, get, post};
use crate::http::problem::Problem;
use crate::http::room::Taken;

/// See [`crate::http::operations`].
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/deliveries/{delivery}/reproduction", "showReproduction", "All that decided a delivery's bytes.", bundle)
            .says("What it takes to run its chain elsewhere; secrets by name alone.")
            .gives::<Reproduction>(200, "Event, chain, limits, tables and what was recorded."),
        post("/deliveries/{delivery}/reproduce", "reproduceDelivery", "Runs its chain again and compares.", reproduce)
            .says("Stores and sends nothing.")
            .gives::<Reproduced>(200, "Whether it came to the same."),
        get("/filters/{filter}/versions/{digest}", "downloadFilter", "A filter's component.", component)
            .gives_bytes(200, "application/wasm", "The bytes as they were uploaded.")
            .gives_nothing(304, "They are known already.")
            .tagged()
            .refuses([429]),
        get("/tables/{table}/versions/{digest}", "downloadTable", "A version's rows as JSON lines.", rows)
            .gives_bytes(200, "application/jsonl", "The rows as they are kept.")
            .gives_nothing(304, "They are known already.")
            .tagged()
            .refuses([429]),
    ]
}

pub(in crate::http) async fn bundle(
    Tenant(tenant): Tenant,
    Named(id): Named<DeliveryId>,
    State(site): State<Site>,
) -> Result<Json<Reproduction>, Problem> {
    Ok(Json(site.control.reproduction(&tenant, id).await?))
}

pub(in crate::http) async fn reproduce(
    Tenant(tenant): Tenant,
    Named(id): Named<DeliveryId>,
    State(site): State<Site>,
) -> Result<Json<Reproduced>, Problem> {
    Ok(Json(site.control.reproduce(&tenant, id).await?))
}

pub(in crate::http) async fn component(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    Named(digest): Named<Digest>,
    State(site): State<Site>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let stored = site.control.component(&tenant, &name, digest).await?;
    give(&site, &tenant, stored, "application/wasm", &known).await
}

pub(in crate::http) async fn rows(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    Named(digest): Named<Digest>,
    State(site): State<Site>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let stored = site.control.table_rows(&tenant, &name, digest).await?;
    give(&site, &tenant, stored, "application/jsonl", &known).await
}

/// Answers with stored bytes, which never change under their name.
async fn give(
    site: &Site,
    tenant: &TenantId,
    stored: Stored,
    media_type: &str,
    known: &IfNoneMatch,
) -> Result<Response, Problem> {
    let tag = format!("\"{}\"", stored.digest);
    if known.has(&tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    // They are in memory until they are sent, as the bodies of requests are until they are read.
    let weight = u32::try_from(stored.bytes).unwrap_or(u32::MAX);
    let room = site.uploads.take(Some(tenant), weight)?;
    let bytes = site.control.read_stored(stored).await?;
    let body = Bytes::from_owner(Held { bytes, _room: room });
    Ok(([(header::CONTENT_TYPE, media_type), (header::ETAG, &tag)], body).into_response())
}

/// Bytes with the room that they take, given back with the last part that is sent.
struct Held {
    bytes: Bytes,
    _room: Taken,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
