//! Management routes, one file per kind of resource as in `control`. Routes parse the request, call the control plane
//! and format the answer; they contain no decisions.

pub(super) mod audit;
pub(super) mod deliveries;
pub(super) mod events;
pub(super) mod filters;
pub(super) mod issuer_keys;
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

use crate::control::filters::FilterView;
use crate::control::issuer_keys::IssuerKeyView;
use crate::control::keys::{KeyOnce, KeyView};
use crate::control::rollouts::RolloutView;
use crate::control::sources::SourceView;
use crate::control::subscriptions::SubscriptionOnce;
use crate::control::tables::TableView;
use crate::control::tenants::TenantShown;

/// A view of a document that has a version.
pub(super) trait Versioned: Serialize {
    fn version(&self) -> u64;
}

macro_rules! versioned {
    ($($view:ty),* $(,)?) => {$(
        impl Versioned for $view {
            fn version(&self) -> u64 {
                self.version
            }
        }
    )*};
}

versioned! {
    FilterView,
    IssuerKeyView,
    KeyView,
    RolloutView,
    SourceView,
    SubscriptionOnce,
    TableView,
    TenantShown,
}

impl Versioned for KeyOnce {
    fn version(&self) -> u64 {
        self.view.version
    }
}

/// An answer with a document, and with its version as `ETag`, for `if-match`.
pub(super) struct Tagged<T>(pub(super) T);

impl<T: Versioned> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let tag = [(header::ETAG, format!("\"{}\"", self.0.version()))];
        (tag, Json(self.0)).into_response()
    }
}

/// A newly created resource: 201 with its path.
pub(super) fn made(path: &str, view: impl Versioned) -> Response {
    (StatusCode::CREATED, located(path), Tagged(view)).into_response()
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
pub(super) fn put(is_new: bool, path: &str, view: impl Versioned) -> Response {
    if is_new { made(path, view) } else { Tagged(view).into_response() }
}

/// The version of a filter or a table to activate.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActivateInput {
    /// The version.
    digest: Digest,
}
