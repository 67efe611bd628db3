//! Configures schemathesis: the key, and the names of existing resources.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::everything::MARK;
use crate::{Everything, Host, place};

/// Share of path parameters that name an existing resource; the others are generated.
const REAL: f64 = 0.85;
/// Number of resources of each kind that may be removed.
const SPARES: usize = 4;

/// Statuses that refuse invalid data. 412 is not among schemathesis' defaults: `if-match` is checked before the body.
const REFUSED: &str = "\
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 429]
";

/// Serialises media types that schemathesis does not support: the text is sent unchanged.
const HOOKS: &str = "\
import json
import schemathesis

@schemathesis.serializer('application/jsonl', 'application/x-ndjson', 'application/ndjson', 'application/secevent+jwt', 'text/csv')
def as_it_is(ctx, value):
    return (value if isinstance(value, str) else json.dumps(value)).encode('utf-8', 'replace')
";

/// Writes `schemathesis.toml` and `hooks.py` to a directory, and creates resources that may be removed.
pub(super) async fn write(host: &Host, all: &Everything, folder: &Path) {
    let acme = &all.tenant;
    std::fs::write(folder.join("hooks.py"), HOOKS).expect("a writable folder");
    let deliveries: Vec<_> = all.subscriptions.iter().map(|(state, _)| all.delivery(state)).collect();
    let subscriptions: Vec<_> = all.subscriptions.iter().map(|(_, id)| id.clone()).collect();
    let digests: Vec<_> = all.gate.iter().chain(&all.users).cloned().collect();
    let spares = spares(host, all, folder).await;
    let mut text = format!("[auth.openapi.key]\nbearer = {}\n\n{REFUSED}\n[dictionaries]\n", json!(host.key()));
    let mut dictionary = |name: &str, values: &[String]| {
        writeln!(text, "{name} = {{ values = {} }}", json!(values)).expect("a string can be written to");
    };
    let one = |value: &str| vec![value.to_owned()];
    dictionary("tenants", &one(&acme.name));
    dictionary("sources", &one("idp"));
    dictionary("filters", &["gate".to_owned(), "drop-by-type".to_owned()]);
    dictionary("tables", &one("users"));
    dictionary("subscriptions", &subscriptions);
    dictionary("events", &one(&all.event.event));
    dictionary("deliveries", &deliveries);
    dictionary("digests", &digests);
    dictionary("urls", &one(&all.receiver.url()));
    dictionary("keys", &spares.keys);
    dictionary("issuer-keys", &spares.issuer_keys);
    dictionary("issuers", &one("2"));
    dictionary("topics", &one(MARK));
    dictionary("modes", &one("subscribe"));
    dictionary("spare-tenants", &spares.named);
    dictionary("spare-named", &spares.named);
    dictionary("spare-subscriptions", &spares.subscriptions);

    text.push_str("\n[parameters]\n");
    for (parameter, dictionary) in [
        ("path.tenant", "tenants"),
        ("path.source", "sources"),
        ("path.filter", "filters"),
        ("path.table", "tables"),
        ("path.subscription", "subscriptions"),
        ("path.event", "events"),
        ("path.delivery", "deliveries"),
        ("path.digest", "digests"),
        ("path.key", "keys"),
        ("path.kid", "issuer-keys"),
        ("path.issuer", "issuers"),
        ("query.hub.topic", "topics"),
        ("query.hub.mode", "modes"),
        ("body.digest", "digests"),
        ("body.endpoint.url", "urls"),
        ("body.sources[*]", "sources"),
        ("body.chain[*].filter", "filters"),
    ] {
        writeln!(text, "{}", binding(parameter, dictionary)).expect("a string can be written to");
    }
    // These operations remove only spare resources, which no other operation uses.
    for (operation, parameter, dictionary) in [
        ("removeTenant", "path.tenant", "spare-tenants"),
        ("removeSource", "path.source", "spare-named"),
        ("removeFilter", "path.filter", "spare-named"),
        ("removeTable", "path.table", "spare-named"),
        ("removeSubscription", "path.subscription", "spare-subscriptions"),
    ] {
        let binding = binding(parameter, dictionary);
        write!(text, "\n[[operations]]\ninclude-operation-id = \"{operation}\"\n[operations.parameters]\n{binding}\n")
            .expect("a string can be written to");
    }
    std::fs::write(folder.join("schemathesis.toml"), text).expect("a writable folder");
}

fn binding(parameter: &str, dictionary: &str) -> String {
    format!("\"{parameter}\" = {{ dictionary = \"{dictionary}\", probability = {REAL} }}")
}

/// Resources that may be removed.
struct Spares {
    keys: Vec<String>,
    issuer_keys: Vec<String>,
    /// Names of sources, filters, tables, and of tenants.
    named: Vec<String>,
    subscriptions: Vec<String>,
}

async fn spares(host: &Host, all: &Everything, folder: &Path) -> Spares {
    let acme = &all.tenant;
    let id = |made: &Value| made["id"].as_str().expect("an id").to_owned();
    let mut spares = Spares { keys: Vec::new(), issuer_keys: Vec::new(), named: Vec::new(), subscriptions: Vec::new() };
    // Their number and rate are limited, so a later run uses those of earlier ones as well.
    acme.client.post(&acme.path("/issuer-keys"), &json!({"algorithm": "EdDSA"})).await;
    let keys = acme.get("/issuer-keys").await;
    let kid = |key: &Value| key["kid"].as_str().expect("a kid").to_owned();
    spares.issuer_keys.extend(keys["items"].as_array().expect("keys").iter().map(kid));
    // Unique per run.
    let run = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let run: String = run.chars().filter(char::is_ascii_alphanumeric).collect();
    for number in 0..SPARES {
        let name = format!("spare-{run}-{number}");
        host.tenant(&name).await;
        acme.source(&name, crate::Seed::Open).await;
        acme.upload(&name, place::filter("redact-claims")).await.expect(201);
        acme.table(&name, &[("a", json!(1))]).await;
        spares.named.push(name);
        let key = acme.client.post(&acme.path("/keys"), &json!({})).await.expect(201).json();
        spares.keys.push(id(&key));
        let key = host.operator().post("/api/v1/keys", &json!({})).await.expect(201).json();
        spares.keys.push(id(&key));
        spares.subscriptions.push(acme.subscribe(&all.receiver).create().await.id);
    }
    spares
}
