//! Controls: removes correct statements from the document, or adds wrong ones. The check must detect each change.

use std::path::Path;

use serde_json::{Value, json};

use super::{Options, schemathesis};
use crate::Host;

/// A control.
pub struct Control {
    /// Name of the check that it tests.
    pub name: &'static str,
    /// The operation that is called.
    operation: &'static str,
    change: fn(&mut Value),
    /// The expected message of schemathesis.
    words: &'static str,
}

/// All controls.
pub const CONTROLS: &[Control] = &[
    Control {
        name: "status",
        operation: "showSource",
        change: |document| {
            let answers = of(document, "/api/v1/tenants/{tenant}/sources/{source}", "responses");
            answers.as_object_mut().expect("answers").shift_remove("404");
        },
        words: "Undocumented status code",
    },
    Control {
        name: "content-type",
        operation: "isAlive",
        change: |document| {
            of(document, "/healthz", "responses")["200"]["content"] = json!({"application/json": {"schema": {}}});
        },
        words: "Undocumented Content-Type",
    },
    Control {
        name: "schema",
        operation: "showTenant",
        change: |document| {
            let answers = of(document, "/api/v1/tenants/{tenant}", "responses");
            let content = json!({"application/json": {"schema": {"type": "object", "required": ["colour"]}}});
            answers["200"]["content"] = content;
        },
        words: "Response violates schema",
    },
    Control {
        name: "key",
        operation: "isReady",
        change: |document| *of(document, "/readyz", "security") = json!([{"key": []}]),
        words: "API accepts requests without authentication",
    },
];

/// A member of the operation that reads a path.
fn of<'a>(document: &'a mut Value, path: &str, member: &str) -> &'a mut Value {
    &mut document["paths"][path]["get"][member]
}

impl Control {
    /// Whether the change is detected.
    pub(super) async fn bites(&self, options: &Options, host: &Host, document: &Value, folder: &Path) -> bool {
        let mut document = document.clone();
        (self.change)(&mut document);
        let only = ["--include-operation-id", self.operation, "--max-examples", "10", "--phases", "coverage,fuzzing"];
        let ended = schemathesis(options, host, &document, folder, &only).await;
        !ended.good && ended.said.contains(self.words)
    }
}
