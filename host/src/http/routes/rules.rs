//! Checks before a route runs, generated from the same table of operations as the document: the known query parameters,
//! and support for `Idempotency-Key`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Method;
use setgate_domain::nearest::nearest;

use crate::http::auth;
use crate::http::openapi::{OperationDraft, Schemas};
use crate::http::problem::{Code, Problem};
use crate::http::state::SharedState;

/// The rules of one operation.
pub(in crate::http) struct Rule {
    /// Names of its query parameters. `None` if unknown parameters are ignored.
    parameters: Option<Vec<String>>,
    /// Whether it always requires an API key.
    needs_key: bool,
    /// Whether it supports `Idempotency-Key`.
    takes_key: bool,
}

type Rules = HashMap<String, Vec<(Method, Arc<Rule>)>>;

/// By path, without a trailing slash.
static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let mut rules = Rules::new();
    for operation in super::all().into_iter().flat_map(|group| group.operations) {
        let mut schemas = Schemas::new();
        let mut draft = OperationDraft::new(&operation.method, &mut schemas);
        (operation.arguments)(&mut draft);
        let in_query = draft.parameters.iter().filter(|parameter| parameter["in"] == "query");
        let names = in_query.filter_map(|parameter| parameter["name"].as_str().map(str::to_owned)).collect();
        let rule = Rule {
            parameters: (!operation.ignores_parameters).then_some(names),
            takes_key: draft.takes_key,
            needs_key: !draft.security.is_empty() && !draft.security.contains(&serde_json::json!({})),
        };
        rules.entry(operation.path).or_default().push((operation.method, Arc::new(rule)));
    }
    rules
});

fn rule_of(route: &str, method: &Method) -> Option<Arc<Rule>> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let of_path = RULES.get(route.trim_end_matches('/'))?;
    of_path.iter().find(|(known, _)| known == method).map(|(_, rule)| rule.clone())
}

/// Whether an operation supports `Idempotency-Key`.
pub(in crate::http) fn takes_key(route: &str, method: &Method) -> bool {
    rule_of(route, method).is_some_and(|rule| rule.takes_key)
}

/// Refuses unknown query parameters. serde checks values and duplicates.
pub(in crate::http) async fn check_query(
    State(app): State<SharedState>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let Some(query) = request.uri().query().filter(|query| !query.is_empty()) else { return next.run(request).await };
    let Some(rule) = route.and_then(|route| rule_of(route.as_str(), request.method())) else {
        return next.run(request).await;
    };
    let Some(problem) = rule.refusal(query) else { return next.run(request).await };
    let (mut parts, _) = request.into_parts();
    // An unauthenticated client learns that a key is missing, but not the names of the parameters.
    match rule.needs_key.then(|| auth::principal(&mut parts, &app)) {
        Some(Err(stranger)) => stranger.into_response(),
        _ => problem.into_response(),
    }
}

impl Rule {
    fn refusal(&self, query: &str) -> Option<Problem> {
        let known = self.parameters.as_ref()?;
        let given = url::form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
        let unknown = given.into_iter().find(|name| !known.iter().any(|known| known == name))?;
        let unknown: String = unknown.chars().take(NAME_CHARS_MAX).collect();
        let detail = if known.is_empty() {
            format!("there is no query parameter `{unknown}` here, and no other: remove it")
        } else {
            let hint = nearest(&unknown, known.iter().map(String::as_str));
            let hint = hint.map_or_else(
                || format!("there are `{}`", known.join("`, `")),
                |name| format!("did you mean `{name}`?"),
            );
            format!("there is no query parameter `{unknown}` here: {hint}")
        };
        Some(Problem::new(Code::InvalidQuery, detail))
    }
}

/// Maximum characters of an unknown name that are repeated in the answer.
const NAME_CHARS_MAX: usize = 100;
