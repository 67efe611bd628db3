//! Renders operations as an OpenAPI 3.1 document.

use http::Method;
use serde_json::{Map, Value, json};

use super::draft::{OperationDraft, POLL_TOKEN, proofs};
use super::operation::{Answer, Operation};
use super::schemas::Schemas;
use crate::http::problem;

/// A group of operations.
pub(in crate::http) struct Group {
    pub(in crate::http) name: &'static str,
    pub(in crate::http) about: &'static str,
    pub(in crate::http) operations: Vec<Operation>,
}

/// The whole document.
pub(in crate::http) fn document(groups: Vec<Group>) -> Value {
    let mut schemas = Schemas::new();
    let (mut paths, mut tags) = (Map::new(), Vec::new());
    for group in groups {
        tags.push(json!({"name": group.name, "description": group.about}));
        for operation in group.operations {
            let described = described(&operation, group.name, &mut schemas);
            let path = paths.entry(operation.path).or_insert_with(|| json!({}));
            path[operation.method.as_str().to_ascii_lowercase()] = described;
        }
    }
    let problem = schemas.given::<problem::Body<'_>>();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Setgate",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Identity events in, filters of each tenant, signed deliveries out.",
            "description": ABOUT,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The host that served this document."}],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": security_schemes(),
            "responses": problem_responses(&problem),
            "headers": {
                "Retry-After": {
                    "description": "Seconds to wait before a retry (RFC 9110 section 10.2.3).",
                    "schema": {"type": "integer", "minimum": 0},
                },
                "ETag": {
                    "description": "The version of the document, for `if-match` or `if-none-match`.",
                    "schema": {"type": "string"},
                },
                "Location": {
                    "description": "The path of the created resource.",
                    "schema": {"type": "string", "format": "uri-reference"},
                },
                "WWW-Authenticate": {"schema": {"type": "string"}},
            },
        },
    });
    schemas.finish(&mut document);
    let any = json!({"type": "object", "additionalProperties": true, "description": "A JSON object of any form."});
    document["components"]["schemas"]["JsonObject"] = any;
    document
}

const ABOUT: &str = "\
Every error is a problem (RFC 9457) with a stable `code`; each code has a page in `docs/errors`. Unknown members and query \
parameters are refused. Lists are paged by `cursor`. Any request is answered 408 if it takes too long. Most responses with 429 \
and 503 have `Retry-After`.";

fn described(operation: &Operation, tag: &str, schemas: &mut Schemas) -> Value {
    let mut draft = OperationDraft::new(&operation.method, schemas);
    (operation.arguments)(&mut draft);
    if operation.body.is_some() {
        draft.errors([400, 413, 415, 429, 503]);
    }
    // Every request can time out.
    draft.errors([408]);
    draft.errors(operation.refuses.iter().copied());
    // Any parameter that is not in the document is refused.
    if !operation.ignores_parameters {
        draft.errors([400]);
    }
    let revalidates = operation.method == Method::GET && operation.answers.iter().any(|answer| answer.tagged);
    if revalidates {
        draft.known_versions();
    }
    let OperationDraft { parameters, body, security, refuses, .. } = draft;

    let mut answers = Map::new();
    for answer in &operation.answers {
        answers.insert(answer.status.to_string(), shown(answer, schemas));
    }
    if revalidates {
        answers.insert("304".to_owned(), json!({"description": "The version is one of `if-none-match`."}));
    }
    // A route may answer a status in a form of its own.
    for status in refuses.into_iter().filter(|status| operation.answers.iter().all(|answer| answer.status != *status)) {
        answers.insert(status.to_string(), json!({"$ref": format!("#/components/responses/{}", name(status))}));
    }
    let mut described = json!({"operationId": operation.id, "summary": operation.summary, "tags": [tag]});
    if let Some(description) = operation.description {
        described["description"] = json!(description);
    }
    if !parameters.is_empty() {
        described["parameters"] = Value::Array(parameters);
    }
    if let Some((media_types, what)) = operation.body {
        let mut content: Map<_, _> =
            media_types.iter().map(|one| ((*one).to_owned(), json!({"schema": body_of(one)}))).collect();
        for (media_type, example) in &operation.examples {
            content[*media_type]["example"] = example.clone();
        }
        described["requestBody"] = json!({"description": what, "required": true, "content": content});
    } else if let Some(body) = body {
        described["requestBody"] = body;
    }
    described["responses"] = Value::Object(answers);
    described["security"] = Value::Array(security);
    described
}

/// The schema of binary content. OpenAPI 3.1 suggests an empty schema, but client generators create no type from it.
pub(super) fn bytes() -> Value {
    json!({"type": "string", "format": "binary"})
}

/// The schema of a body that the route parses itself: a JSON object, text, or bytes.
fn body_of(media_type: &str) -> Value {
    match media_type {
        json if json.ends_with("json") && !json.ends_with("ndjson") => {
            json!({"$ref": "#/components/schemas/JsonObject"})
        }
        "application/wasm" | "application/octet-stream" => bytes(),
        _ => json!({"type": "string"}),
    }
}

fn shown(answer: &Answer, schemas: &mut Schemas) -> Value {
    let mut shown = json!({"description": answer.description});
    let header = |name: &str| json!({"$ref": format!("#/components/headers/{name}")});
    if answer.tagged {
        shown["headers"]["ETag"] = header("ETag");
    }
    if answer.status == 201 {
        shown["headers"]["Location"] = header("Location");
    }
    if let Some((media_type, schema)) = answer.content {
        shown["content"] = json!({media_type: {"schema": schema(schemas)}});
    }
    shown
}

fn security_schemes() -> Value {
    let mut schemes = json!({
        "key": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "sgk_<id>_<secret>",
            "description": "An API key of this host. Its scopes define the permitted requests. A tenant's key is valid for that tenant only.",
        },
    });
    let (name, description) = POLL_TOKEN;
    schemes[name] = json!({"type": "http", "scheme": "bearer", "description": description});
    for (name, header, description) in proofs() {
        schemes[name] = json!({"type": "apiKey", "in": "header", "name": header, "description": description});
    }
    schemes
}

/// Every status of a problem, with its general meaning.
const REFUSALS: &[(u16, &str, &str)] = &[
    (400, "BadRequest", "The query, the body or the cursor is malformed."),
    (401, "Unauthorized", "The key or proof is missing or invalid."),
    (
        403,
        "Forbidden",
        "The key does not permit this request. The answer is the same for resources of other tenants and for tenants that do not exist.",
    ),
    (404, "NotFound", "The resource does not exist, or not for this tenant."),
    (408, "RequestTimeout", "The request took too long."),
    (
        409,
        "Conflict",
        "The request conflicts with the current state: the resource exists, is in use, or a quota is reached.",
    ),
    (
        412,
        "PreconditionFailed",
        "The resource was changed: its version does not match `if-match`, or the version that was read.",
    ),
    (413, "ContentTooLarge", "The body is larger than the limit in the `detail`."),
    (415, "UnsupportedMediaType", "The media type or the content coding is not supported."),
    (422, "UnprocessableContent", "A member has an invalid value, or the upload is not a valid filter."),
    (429, "TooManyRequests", "A limit of the tenant or the client is reached: retry later."),
    (500, "InternalServerError", "Stored data cannot be read or decrypted: see the host's log."),
    (503, "ServiceUnavailable", "The host cannot process the request now: retry later."),
];

/// Panics if the status is not in [`REFUSALS`]. Tests render the document, so a missing status fails there.
fn name(status: u16) -> &'static str {
    let known = REFUSALS.iter().find(|(known, ..)| *known == status);
    known.unwrap_or_else(|| panic!("add the meaning of {status} to REFUSALS")).1
}

fn problem_responses(problem: &Value) -> Value {
    let response = |(status, name, description): &(u16, &str, &str)| {
        let mut response = json!({"description": description});
        let header = |name: &str| json!({name: {"$ref": format!("#/components/headers/{name}")}});
        match status {
            401 => response["headers"] = header("WWW-Authenticate"),
            429 | 503 => response["headers"] = header("Retry-After"),
            _ => {}
        }
        response["content"] = json!({"application/problem+json": {"schema": problem}});
        ((*name).to_owned(), response)
    };
    Value::Object(REFUSALS.iter().map(response).collect())
}
