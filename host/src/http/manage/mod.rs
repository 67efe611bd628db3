//! Management: one file a kind of thing, as in `control`. Each route parses, calls and shows; it decides nothing.

pub(super) mod deliveries;
pub(super) mod events;
pub(super) mod filters;
pub(super) mod keys;
pub(super) mod reproduction;
pub(super) mod rollouts;
pub(super) mod sources;
pub(super) mod subscriptions;
pub(super) mod tables;
pub(super) mod tenants;

use axum::Json;
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

/// Which version of a filter or a table is to be active.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActivateInput {
    /// The version.
    digest: Digest,
}
