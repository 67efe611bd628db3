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

use crate::domain::id::Digest;

/// A whole list.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub(super) struct Items<T> {
    /// The entries.
    items: Vec<T>,
}

pub(super) fn items<T>(items: Vec<T>) -> Json<Items<T>> {
    Json(Items { items })
}

/// A document with the version that it has, for `if-match`.
pub(super) fn tagged<T: Serialize>(status: StatusCode, version: u64, shown: T) -> Response {
    (status, [(header::ETAG, format!("\"{version}\""))], Json(shown)).into_response()
}

/// Which version of a filter or a table is to be active.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActivateInput {
    /// The version.
    digest: Digest,
}
