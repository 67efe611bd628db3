//! Management: one file a kind of thing, as in `control`. Each route parses, calls and shows; it decides nothing.

pub(super) mod audit;
pub(super) mod deliveries;
pub(super) mod events;
pub(super) mod filters;
pub(super) mod keys;
pub(super) mod replays;
pub(super) mod reproduction;
pub(super) mod rollouts;
pub(super) mod sources;
pub(super) mod statistics;
pub(super) mod subscriptions;
pub(super) mod tables;
pub(super) mod tail;
pub(super) mod tenants;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::id::{Digest, TenantId};

/// A document with the version that it has, for `if-match`.
pub(super) fn tagged<T: Serialize>(status: StatusCode, version: u64, shown: T) -> Response {
    (status, tagged_only(version), Json(shown)).into_response()
}

/// A thing that was just made: 201 with the path that it is found at.
pub(super) fn made<T: Serialize>(path: &str, version: u64, shown: T) -> Response {
    (StatusCode::CREATED, located(path), tagged_only(version), Json(shown)).into_response()
}

/// The path, below the host's address, that something made here is found at.
pub(super) fn located(path: &str) -> [(header::HeaderName, String); 1] {
    [(header::LOCATION, path.to_owned())]
}

/// The path of a tenant's thing; `below` begins with a slash.
pub(super) fn path_of(tenant: &TenantId, below: std::fmt::Arguments<'_>) -> String {
    format!("/api/v1/tenants/{tenant}{below}")
}

/// What a PUT came to: 201 where the thing is new, else 200.
pub(super) fn put<T: Serialize>(is_new: bool, path: &str, version: u64, shown: T) -> Response {
    if is_new { made(path, version, shown) } else { tagged(StatusCode::OK, version, shown) }
}

fn tagged_only(version: u64) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

/// Which version of a filter or a table is to be active.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActivateInput {
    /// The version.
    digest: Digest,
}
