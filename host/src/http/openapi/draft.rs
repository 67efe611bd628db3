//! The parts of an operation's description that come from its route's arguments.

use std::collections::BTreeSet;
use std::str::FromStr;

use axum::extract::{Request, State};
use http::request::Parts;
use http::{HeaderMap, Method};
use schemars::JsonSchema;
use serde_json::{Value, json};
use setgate_dialects::Scheme;
use setgate_domain::id::{
    DeliveryId, Digest, EventId, FilterName, IssuerKeyId, IssuerNumber, KeyId, ReplayId, SourceName, SubscriptionRef,
    TableName, TenantId,
};
use setgate_domain::tenant::Scope;

use super::schemas::Schemas;

/// Maximum length (characters) of an `Idempotency-Key`.
pub(in crate::http) const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

/// A type that identifies a resource in a path.
pub(in crate::http) trait InPath: FromStr<Err = setgate_domain::id::Error> + JsonSchema {
    /// Name of the path parameter, such as `source` for `{source}`.
    const PARAM: &'static str;
}

macro_rules! in_path {
    ($($type:ident = $param:literal),* $(,)?) => {
        $(impl InPath for $type {
            const PARAM: &'static str = $param;
        })*
    };
}

in_path!(
    TenantId = "tenant",
    SourceName = "source",
    FilterName = "filter",
    TableName = "table",
    SubscriptionRef = "subscription",
    EventId = "event",
    DeliveryId = "delivery",
    KeyId = "key",
    IssuerKeyId = "kid",
    IssuerNumber = "issuer",
    ReplayId = "replay",
    Digest = "digest",
);

/// An argument of a route that describes its part of the request and its refusals.
pub(in crate::http) trait DescribeInput {
    /// Adds the description.
    fn describe(draft: &mut OperationDraft<'_>);
}

/// All arguments of a route, as the second type parameter of axum's handlers.
pub(in crate::http) trait Arguments {
    fn describe(draft: &mut OperationDraft<'_>);
}

macro_rules! arguments {
    ($($type:ident),*) => {
        impl<M, $($type: DescribeInput),*> Arguments for (M, $($type,)*) {
            fn describe(draft: &mut OperationDraft<'_>) {
                $($type::describe(draft);)*
                // Unused if there are no arguments.
                let _ = draft;
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

/// The description of an operation, collected from its arguments.
pub(in crate::http) struct OperationDraft<'a> {
    pub(in crate::http) method: &'a Method,
    schemas: &'a mut Schemas,
    pub(in crate::http) parameters: Vec<Value>,
    pub(in crate::http) body: Option<Value>,
    /// OpenAPI's security requirements; empty if there are none.
    pub(in crate::http) security: Vec<Value>,
    pub(in crate::http) refuses: BTreeSet<u16>,
    /// Whether it supports `Idempotency-Key`.
    pub(in crate::http) takes_key: bool,
}

impl<'a> OperationDraft<'a> {
    pub(in crate::http) fn new(method: &'a Method, schemas: &'a mut Schemas) -> Self {
        let (parameters, security) = (Vec::new(), Vec::new());
        Self { method, schemas, parameters, body: None, security, refuses: BTreeSet::new(), takes_key: false }
    }

    /// The method of the operation.
    pub(in crate::http) fn method(&self) -> &Method {
        self.method
    }

    /// Adds a path parameter.
    pub(in crate::http) fn in_path<T: InPath>(&mut self) {
        self.in_secret_path::<T>();
        self.errors([404]);
    }

    /// Adds a path parameter of a route that does not reveal whether it names anything.
    pub(in crate::http) fn in_secret_path<T: InPath>(&mut self) {
        if self.parameters.iter().any(|known| known["name"] == T::PARAM) {
            return;
        }
        let schema = self.schemas.taken::<T>();
        self.parameters.push(json!({"name": T::PARAM, "in": "path", "required": true, "schema": schema}));
    }

    /// Adds query parameters: the members of a struct.
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
        self.errors([400]);
    }

    /// Adds an optional header.
    pub(in crate::http) fn in_header(&mut self, name: &str, schema: &Value, description: &str) {
        let parameter = json!({"name": name, "in": "header", "description": description, "schema": schema});
        self.parameters.push(parameter);
    }

    /// Adds the `if-none-match` header, once for all arguments.
    pub(in crate::http) fn known_versions(&mut self) {
        if self.parameters.iter().all(|known| known["name"] != "if-none-match") {
            let description = "`ETag`s of cached versions, separated by commas. A cached version is answered 304.";
            self.in_header("if-none-match", &json!({"type": "string"}), description);
        }
    }

    /// Adds the `Idempotency-Key` header.
    pub(in crate::http) fn takes_key(&mut self) {
        self.takes_key = true;
        let schema = json!({"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_CHARS_MAX, "pattern": "^[!#-+\\--~]+$"});
        let description =
            "A repeated request with the same key within a day gets the stored response and is not executed again.";
        self.in_header("idempotency-key", &schema, description);
        self.errors([400, 409, 422, 429]);
    }

    /// Declares a JSON body.
    pub(in crate::http) fn json_body<T: JsonSchema>(&mut self) {
        let schema = self.schemas.taken::<T>();
        // A POST without a body is treated as an empty object.
        let required = self.method != Method::POST || self.schemas.members::<T>().get("required").is_some();
        self.body = Some(json!({"required": required, "content": {"application/json": {"schema": schema}}}));
        // Malformed; too large; unsupported media type; no memory budget.
        self.errors([400, 413, 415, 429, 503]);
    }

    /// Requires a key with this scope.
    pub(in crate::http) fn needs(&mut self, scope: Scope) {
        // Some resources of a tenant can only be changed by the operator.
        let operators = json!({"key": [Scope::Operator]});
        if !self.security.contains(&operators) {
            self.security = vec![json!({"key": [scope]})];
        }
        self.errors([401, 403, 503]);
    }

    /// The key is required only if the host is configured so.
    pub(in crate::http) fn may_need(&mut self, scope: Scope) {
        self.security = vec![json!({"key": [scope]}), json!({})];
        self.errors([401, 403]);
    }

    /// Requires a proof of the addressed source, of any kind.
    pub(in crate::http) fn needs_proof(&mut self) {
        self.security = proofs().map(|(name, ..)| json!({name: []})).chain([json!({})]).collect();
        self.errors([401]);
    }

    /// Requires the bearer token of the addressed subscription's receiver.
    pub(in crate::http) fn needs_poll_token(&mut self) {
        self.security = vec![json!({POLL_TOKEN.0: []})];
        self.errors([401]);
    }

    /// Adds problem statuses.
    pub(in crate::http) fn errors(&mut self, statuses: impl IntoIterator<Item = u16>) {
        self.refuses.extend(statuses);
    }
}

/// The token of a polling receiver: name of the security scheme, description.
pub(in crate::http) const POLL_TOKEN: (&str, &str) =
    ("pollToken", "The token of a receiver that polls, as `Authorization: Bearer sgp_...`.");

/// The proofs of sources: name of the security scheme, header, description.
pub(in crate::http) fn proofs() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    let token = ("sourceToken".to_owned(), "authorization", "A source's token as `Authorization: Bearer ...`.");
    let signature = |scheme: &'static Scheme| (format!("{}Signature", scheme.name()), scheme.header(), scheme.about);
    std::iter::once(token).chain(setgate_dialects::schemes().map(signature))
}

/// Converts a member of a query to a parameter: its description is outside its schema, and it is absent rather than
/// null.
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

impl<T> DescribeInput for State<T> {
    fn describe(_: &mut OperationDraft<'_>) {}
}

/// DescribeInput by [`Operation::accepts`](super::Operation::accepts).
impl DescribeInput for Request {
    fn describe(_: &mut OperationDraft<'_>) {}
}

/// For routes that use the request's head later.
impl DescribeInput for Parts {
    fn describe(_: &mut OperationDraft<'_>) {}
}

impl DescribeInput for HeaderMap {
    fn describe(_: &mut OperationDraft<'_>) {}
}
