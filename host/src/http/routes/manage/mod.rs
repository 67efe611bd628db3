//! Management routes, one file per kind of resource as in `control`. Routes parse the request, call the control plane
//! and format the answer; they contain no decisions.

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
use setgate_domain::id::{Digest, TenantId};

/// A document with its version as `ETag`, for `if-match`.
pub(super) fn tagged<T: Serialize>(status: StatusCode, version: u64, shown: T) -> Response {
    (status, tagged_only(version), Json(shown)).into_response()
}

/// A newly created resource: 201 with its path.
pub(super) fn made<T: Serialize>(path: &str, version: u64, shown: T) -> Response {
    (StatusCode::CREATED, located(path), tagged_only(version), Json(shown)).into_response()
}

/// The `location` header with the path of a new resource.
pub(super) fn located(path: &str) -> [(header::HeaderName, String); 1] {
    [(header::LOCATION, path.to_owned())]
}

/// The path of a tenant's resource; `below` begins with a slash.
pub(super) fn path_of(tenant: &TenantId, below: std::fmt::Arguments<'_>) -> String {
    format!("/api/v1/tenants/{tenant}{below}")
}

/// The answer to a PUT: 201 if the resource is new, otherwise 200.
pub(super) fn put<T: Serialize>(is_new: bool, path: &str, version: u64, shown: T) -> Response {
    if is_new { made(path, version, shown) } else { tagged(StatusCode::OK, version, shown) }
}

fn tagged_only(version: u64) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

/// The version of a filter or a table to activate.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActivateInput {
    /// The version.
    digest: Digest,
}
