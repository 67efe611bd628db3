//! The table of operations: every route is described once, and both the router and `/openapi.json` are generated from
//! it. So every route is documented, and the document contains no route that does not exist.
//!
//! **How to add one.** Write the route beside related ones in `http/routes/manage/<things>.rs`, and add a line to that file's
//! `operations()`:
//!
//! ```ignore
//! post("/subscriptions/{subscription}/pause", "pauseSubscription", "Pauses a subscription.", pause)
//!     .responds::<SubscriptionView>(200, "The subscription is paused.")
//!     .errors([409]),
//! ```
//!
//! The request is derived from the route's arguments, so it cannot be documented wrongly:
//! [`Named`](super::extract::Named) is a parameter of the path, [`Query`](super::extract::Query) those after the `?`,
//! [`JsonBody`](super::extract::JsonBody) the body, and [`Tenant`](super::auth::Tenant) and
//! [`Operator`](super::auth::Operator) the required access. Each adds its own errors (401, 403, 404, 400, 413, 415,
//! ...); a new type of argument implements [`DescribeInput`](super::openapi::DescribeInput). The line itself states:
//!
//! - the path, whose parameters have the names of [`InPath`](super::openapi::InPath), relative to the tenant's path for
//!   operations in [`of_tenant`];
//! - the operation's id, unique and in camel case, and a summary of one line; [`Operation::description`] adds a longer
//!   description;
//! - each success: [`responds`](Operation::responds) with the type of the answer,
//!   [`responds_empty`](Operation::responds_empty), [`responds_text`](Operation::responds_text),
//!   [`responds_bytes`](Operation::responds_bytes);
//! - a body that is not JSON: [`accepts`](Operation::accepts);
//! - the error statuses of the route itself: [`errors`](Operation::errors), mostly 409, 412, 422 and 429.
//!
//! Types of requests and answers derive `schemars::JsonSchema` in addition to serde; attributes (`length`, `range`)
//! state the limits of a field, so that the document contains them. A new file of routes needs a line in [`of_tenant`]
//! or [`all`].
//!
//! `cargo xtask openapi` tests the operation: every answer must match the document. `tests/it/tenant_isolation.rs` fails
//! until it has a valid call of the operation by its tenant.

mod health;
mod ingest;
mod jwks;
mod manage;
mod poll;
mod push;
pub(super) mod rules;

use std::sync::LazyLock;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header;
use serde_json::{Map, Value};
use setgate_base::crypto;
use setgate_domain::id::Digest;

use super::openapi::{Group, Operation, document, get};
use super::responses::SelfManaged;
use super::state::SharedState;
use manage::{
    audit, deliveries, events, filters, issuer_keys, keys, replays, reproduction, rollouts, sources, statistics,
    subscriptions, tables, tail, tenants,
};

/// The path prefix of a tenant's resources.
const TENANT: &str = "/api/v1/tenants/{tenant}";

/// The resources of one tenant: name of the group, its description, and operations with paths relative to the tenant's.
fn of_tenant() -> Vec<(&'static str, &'static str, Vec<Operation>)> {
    vec![
        ("sources", "Sources send events to the host.", sources::operations()),
        ("filters", "Filters: the tenant's WebAssembly components, with versions.", filters::operations()),
        (
            "rollouts",
            "Backtest, shadow and canary runs of a filter version before it is activated.",
            rollouts::operations(),
        ),
        ("tables", "Lookup tables for filters.", tables::operations()),
        (
            "subscriptions",
            "Subscriptions: events, filter chain, endpoint and signing of a receiver.",
            subscriptions::operations(),
        ),
        ("events", "Accepted events.", events::operations()),
        ("deliveries", "Deliveries of events to subscriptions, with their attempts.", deliveries::operations()),
        ("tail", "Live stream of delivery settlements.", tail::operations()),
        ("replays", "Replays of past events.", replays::operations()),
        ("statistics", "Statistics of deliveries and attempts.", statistics::operations()),
        ("reproduction", "Repeat the filter chain of a delivery and compare the results.", reproduction::operations()),
        ("keys", "API keys.", keys::operations()),
        ("issuer-keys", "Issuer keys: they sign the SETs that the tenant issues.", issuer_keys::operations()),
        ("audit", "Audit log of changes.", audit::operations()),
        ("tenants", "Tenants: create, inspect and delete tenants.", tenants::operations()),
    ]
}

/// All operations.
fn all() -> Vec<Group> {
    let mut groups = vec![Group {
        name: "ingest",
        about: "Ingest of events. A source authenticates with its own proof; an API key is needed only if the source requires one.",
        operations: ingest::operations().into_iter().chain(push::operations()).collect(),
    }];
    groups.push(Group {
        name: "receivers",
        about: "Signed SETs for receivers that poll.",
        operations: poll::operations(),
    });
    groups.push(Group {
        name: "issuers",
        about: "Public keys of the tenants' issuers, without a key.",
        operations: jwks::operations(),
    });
    groups.extend(of_tenant().into_iter().map(|(name, about, operations)| Group {
        name,
        about,
        operations: operations.into_iter().map(|operation| operation.with_prefix(TENANT)).collect(),
    }));
    groups.push(Group {
        name: "operator",
        about: "Operator only.",
        operations: [tenants::of_operator(), keys::of_operator(), audit::of_operator()].into_iter().flatten().collect(),
    });
    groups.push(Group {
        name: "host",
        about: "Health, metrics and this document.",
        operations: health::operations().into_iter().chain([this_document()]).collect(),
    });
    groups
}

/// The routes of all operations, each with and without a trailing slash.
pub(super) fn routes() -> Router<SharedState> {
    let operations = all().into_iter().flat_map(|group| group.operations);
    operations.fold(Router::new(), |router, operation| {
        let with_slash = format!("{}/", operation.path);
        router.route(&operation.path, operation.route.clone()).route(&with_slash, operation.route)
    })
}

/// The serialised document and its `ETag`, rendered once per process.
static DOCUMENT: LazyLock<(Bytes, String)> = LazyLock::new(|| {
    let text = document(all()).to_string();
    let tag = format!("\"{}\"", Digest(crypto::sha256(text.as_bytes())));
    (text.into(), tag)
});

fn this_document() -> Operation {
    get("/openapi.json", "showOpenApi", "Shows this document.", serve_document)
        .responds::<Map<String, Value>>(200, "OpenAPI 3.1.")
        .tagged()
}

async fn serve_document() -> Response {
    let (text, tag) = &*DOCUMENT;
    let mut response =
        ([(header::CONTENT_TYPE, "application/json"), (header::ETAG, tag)], text.clone()).into_response();
    response.extensions_mut().insert(SelfManaged::SharedBytes);
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn each_operation_is_told_once_and_whole() {
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for group in all() {
            for operation in group.operations {
                let id = operation.id;
                assert!(ids.insert(id), "{id}: two operations have this id");
                assert!(places.insert((operation.method.to_string(), operation.path)), "{id}: another has its place");
                assert!(operation.summary.ends_with('.'), "{id}: its summary is a sentence");
                assert!(operation.answers.iter().any(|answer| answer.status < 400), "{id}: it succeeds somehow");
            }
        }
        // Panics if paths conflict.
        let _ = routes();
    }

    #[test]
    fn the_parameters_of_each_path_are_those_of_its_route() {
        let document = document(all());
        for (path, operations) in document["paths"].as_object().unwrap() {
            let in_path: BTreeSet<_> = path.split(['{', '}']).skip(1).step_by(2).collect();
            for (method, operation) in operations.as_object().unwrap() {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let told: Vec<_> = parameters.filter(|one| one["in"] == "path").collect();
                let names = told.iter().map(|one| one["name"].as_str().unwrap());
                assert_eq!(names.collect::<BTreeSet<_>>(), in_path, "{method} {path}");
                for parameter in told {
                    let schema = parameter["schema"]["$ref"].as_str().map(|name| name.trim_start_matches('#')).unwrap();
                    let is = &document.pointer(schema).unwrap()["type"];
                    assert!(is == "string" || is == "integer", "{method} {path}: {parameter} is a {is}");
                }
            }
        }
    }

    #[test]
    fn each_reference_of_the_document_leads_somewhere() {
        fn references<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
            match value {
                Value::Object(members) => members.iter().for_each(|(name, member)| match member {
                    Value::String(text) if name == "$ref" => into.push(text),
                    other => references(other, into),
                }),
                Value::Array(items) => items.iter().for_each(|item| references(item, into)),
                _ => {}
            }
        }
        let document = document(all());
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 500, "there are references: {}", found.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            assert!(!name.ends_with(char::is_numeric), "{name}: two types have one name, say `schemars(rename)`");
            assert_ne!(*schema, Value::Bool(true), "{name} says nothing");
        }
    }
}
