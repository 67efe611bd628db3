use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;

use crate::control::reproduction::{Reproduced, Stored};
use crate::domain::id::{DeliveryId, Digest, FilterName, TableName};
use crate::domain::reproduction::Reproduction;
use crate::http::Site;
use crate::http::auth::Tenant;
use crate::http::extract::{Named, path_param};
use crate::http::problem::Problem;

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

/// The path's `{digest}`, parsed.
pub(in crate::http) struct Version(Digest);

impl FromRequestParts<Site> for Version {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Problem> {
        path_param(parts, site, "digest").await.map(Self)
    }
}

pub(in crate::http) async fn component(
    Tenant(tenant): Tenant,
    Named(name): Named<FilterName>,
    Version(digest): Version,
    State(site): State<Site>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let stored = site.control.component(&tenant, &name, digest).await?;
    give(&site, stored, "application/wasm", &headers).await
}

pub(in crate::http) async fn rows(
    Tenant(tenant): Tenant,
    Named(name): Named<TableName>,
    Version(digest): Version,
    State(site): State<Site>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let stored = site.control.table_rows(&tenant, &name, digest).await?;
    give(&site, stored, "application/jsonl", &headers).await
}

/// Answers with stored bytes, which never change under their name.
async fn give(site: &Site, stored: Stored, media_type: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let tag = format!("\"{}\"", stored.digest);
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let known = known.flat_map(|tags| tags.split(',')).any(|given| given.trim() == tag || given.trim() == "*");
    if known {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    // They are in memory until they are sent, as the bodies of requests are until they are read.
    let weight = u32::try_from(stored.bytes).unwrap_or(u32::MAX);
    let Ok(room) = site.bodies.clone().try_acquire_many_owned(weight) else {
        let detail = "the host has as many bodies in memory as it has room for: ask again later";
        return Err(Problem::busy(StatusCode::SERVICE_UNAVAILABLE, "busy", detail));
    };
    let bytes = site.control.read_stored(stored).await?;
    let body = Bytes::from_owner(Held { bytes, _room: room });
    Ok(([(header::CONTENT_TYPE, media_type), (header::ETAG, &tag)], body).into_response())
}

/// Bytes with the room that they take, given back with the last part that is sent.
struct Held {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
