//! What the arguments of a route say of it.

use std::collections::BTreeSet;

use axum::extract::{Request, State};
use http::request::Parts;
use http::{HeaderMap, Method};
use schemars::JsonSchema;
use serde_json::{Value, json};

use super::schemas::Schemas;
use crate::domain::tenant::Scope;
use crate::http::Site;
use crate::http::extract::InPath;
use crate::http::idempotency::KEY_CHARS_MAX;

/// An argument of a route: what the request has to bring for it, and how it is refused where it does not.
pub(in crate::http) trait Described {
    /// Writes that down.
    fn describe(sheet: &mut Sheet<'_>);
}

/// All arguments of a route, as axum has them in the second parameter of its routes.
pub(in crate::http) trait Arguments {
    fn describe(sheet: &mut Sheet<'_>);
}

macro_rules! arguments {
    ($($type:ident),*) => {
        impl<M, $($type: Described),*> Arguments for (M, $($type,)*) {
            fn describe(sheet: &mut Sheet<'_>) {
                $($type::describe(sheet);)*
                // Without arguments there is nothing to write on it.
                let _ = sheet;
            }
        }
    };
}

arguments!();
arguments!(A);
arguments!(A, B);
arguments!(A, B, C);
arguments!(A, B, C, D);
arguments!(A, B, C, D, E);
arguments!(A, B, C, D, E, F);
arguments!(A, B, C, D, E, F, G);

/// What is gathered about one operation.
pub(in crate::http) struct Sheet<'a> {
    pub(super) method: &'a Method,
    schemas: &'a mut Schemas,
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Value>,
    /// OpenAPI's security requirements; empty: none.
    pub(super) security: Vec<Value>,
    pub(super) refuses: BTreeSet<u16>,
    /// Whether it takes an `Idempotency-Key`.
    pub(super) takes_key: bool,
}

impl<'a> Sheet<'a> {
    pub(super) fn new(method: &'a Method, schemas: &'a mut Schemas) -> Self {
        let (parameters, security) = (Vec::new(), Vec::new());
        Self { method, schemas, parameters, body: None, security, refuses: BTreeSet::new(), takes_key: false }
    }

    /// The method of the operation.
    pub(in crate::http) fn method(&self) -> &Method {
        self.method
    }

    /// A parameter of the path.
    pub(in crate::http) fn in_path<T: InPath>(&mut self) {
        if self.parameters.iter().any(|known| known["name"] == T::PARAM) {
            return;
        }
        let schema = self.schemas.taken::<T>();
        self.parameters.push(json!({"name": T::PARAM, "in": "path", "required": true, "schema": schema}));
        self.refuses([404]);
    }

    /// Parameters after the `?`: the members of a struct.
    pub(in crate::http) fn in_query<T: JsonSchema>(&mut self) {
        let schema = self.schemas.members::<T>();
        let required: Vec<_> = schema["required"].as_array().into_iter().flatten().cloned().collect();
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            let (description, schema) = as_parameter(member.clone());
            let mut parameter = json!({"name": name, "in": "query", "required": required.contains(&json!(name))});
            if let Some(description) = description {
                parameter["description"] = description;
            }
            parameter["schema"] = schema;
            self.parameters.push(parameter);
        }
        self.refuses([400]);
    }

    /// A header that may be sent.
    pub(in crate::http) fn in_header(&mut self, name: &str, schema: &Value, description: &str) {
        let parameter = json!({"name": name, "in": "header", "description": description, "schema": schema});
        self.parameters.push(parameter);
    }

    /// The header that asks for what is not known yet; once, if an argument has asked for it too.
    pub(in crate::http) fn known_versions(&mut self) {
        if self.parameters.iter().all(|known| known["name"] != "if-none-match") {
            let description = "`ETag`s of what is known already, with commas between them: it is not sent again.";
            self.in_header("if-none-match", &json!({"type": "string"}), description);
        }
    }

    /// A key under which the request is carried out at most once.
    pub(in crate::http) fn takes_key(&mut self) {
        self.takes_key = true;
        let schema = json!({"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX, "pattern": "^[!#-+\\--~]+$"});
        let description =
            "Sent again under the same key within a day, the request is answered as it was and not carried out again.";
        self.in_header("idempotency-key", &schema, description);
        self.refuses([400, 409, 422, 429]);
    }

    /// A body of JSON.
    pub(in crate::http) fn json_body<T: JsonSchema>(&mut self) {
        let schema = self.schemas.taken::<T>();
        // A POST without a body is one of an empty object.
        let required = self.method != Method::POST || self.schemas.members::<T>().get("required").is_some();
        self.body = Some(json!({"required": required, "content": {"application/json": {"schema": schema}}}));
        // Broken or no JSON; too large; of another type; no room for it.
        self.refuses([400, 413, 415, 429, 503]);
    }

    /// A key with this scope.
    pub(in crate::http) fn needs(&mut self, scope: Scope) {
        // Some of what belongs to a tenant is the operator's to change.
        let operators = json!({"key": [Scope::Operator]});
        if !self.security.contains(&operators) {
            self.security = vec![json!({"key": [scope]})];
        }
        self.refuses([401, 403, 503]);
    }

    /// Keys are asked for where the host is set up so, and not elsewhere.
    pub(in crate::http) fn may_need(&mut self, scope: Scope) {
        self.security = vec![json!({"key": [scope]}), json!({})];
        self.refuses([401, 403]);
    }

    /// A proof of the source that is sent to, whichever it was set up with.
    pub(in crate::http) fn needs_proof(&mut self) {
        self.security = PROOFS.iter().map(|(name, ..)| json!({*name: []})).chain([json!({})]).collect();
        self.refuses([401]);
    }

    /// Statuses of problems.
    pub(in crate::http) fn refuses(&mut self, statuses: impl IntoIterator<Item = u16>) {
        self.refuses.extend(statuses);
    }
}

/// How a source proves itself: name of the scheme, header, what stands in it.
pub(super) const PROOFS: &[(&str, &str, &str)] = &[
    ("sourceToken", "authorization", "A source's token as `Authorization: Bearer ...`."),
    ("wso2Signature", "x-wso2-event-signature", "`sha256=<hex>`: HMAC of the body."),
    ("hubSignature", "x-hub-signature", "`<sha256|sha384|sha512>=<hex>`: HMAC of the body (W3C WebSub section 8)."),
    ("logtoSignature", "logto-signature-sha-256", "`<hex>`: HMAC of the body."),
    (
        "standardSignature",
        "webhook-signature",
        "`v1,<base64>`, with `webhook-id` and `webhook-timestamp` (Standard Webhooks).",
    ),
];

/// A member of a query as a parameter: its description stands beside its schema, and it is absent rather than null.
fn as_parameter(mut schema: Value) -> (Option<Value>, Value) {
    let Some(members) = schema.as_object_mut() else { return (None, schema) };
    let description = members.shift_remove("description");
    if members.get("default") == Some(&Value::Null) {
        members.shift_remove("default");
    }
    let is_null = |one: &Value| *one == "null" || one["type"] == "null";
    if let Some(types) = members.get_mut("type").filter(|types| types.is_array()) {
        let left = types.as_array().into_iter().flatten().find(|one| !is_null(one)).cloned();
        *types = left.unwrap_or(Value::Null);
    }
    let kind = members.get("anyOf").and_then(Value::as_array).into_iter().flatten().find(|one| !is_null(one)).cloned();
    (description, kind.unwrap_or(schema))
}

impl Described for State<Site> {
    fn describe(_: &mut Sheet<'_>) {}
}

/// Said by [`Operation::takes`](super::Operation::takes).
impl Described for Request {
    fn describe(_: &mut Sheet<'_>) {}
}

/// For a route that looks at the request once more later.
impl Described for Parts {
    fn describe(_: &mut Sheet<'_>) {}
}

impl Described for HeaderMap {
    fn describe(_: &mut Sheet<'_>) {}
}
