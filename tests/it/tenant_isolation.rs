//! Isolation of tenants: every operation of the live `/openapi.json` succeeds for its owner, and is then tried with
//! another tenant's key on the owner's path, and on the other tenant's path with the owner's ids.
//!
//! An operation that is missing in [`calls`] fails this test: a new route needs an example call by its owner here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use setgate_tests::everything::{self, MARK};
use setgate_tests::{Answer, Client, Everything, Host, Received, Reply, Seed, Tenant, place, until};

/// The path prefix of a tenant's resources.
const BELOW: &str = "/api/v1/tenants/{tenant}";

/// Number of faults that suspend a filter.
const FAULTS_MAX: usize = 3;

/// A call of an operation.
#[derive(Clone)]
struct Call {
    operation: &'static str,
    /// The path's parameters besides the tenant.
    at: Vec<(&'static str, String)>,
    query: String,
    media_type: &'static str,
    body: Bytes,
    /// Replacements of path parameters for the other tenant, if the owner's call consumes the resource.
    elsewhere: Vec<(&'static str, String)>,
    /// Further queries for the other tenant to try.
    queries: Vec<String>,
    /// Whether it creates a resource under a name of the caller's choice, which is always allowed.
    makes: bool,
    /// Whether its body refers to resources that must belong to the caller.
    names_in_body: bool,
    /// Whether it is also refused if the other tenant has resources of the same names, because it refers to bytes.
    names_bytes: bool,
    /// Whether it returns only numbers and times, which identify no tenant.
    numbers: bool,
    /// Whether its answer is endless, so that only its beginning is checked.
    endless: bool,
}

fn call(operation: &'static str) -> Call {
    Call {
        operation,
        at: Vec::new(),
        query: String::new(),
        media_type: "",
        body: Bytes::new(),
        elsewhere: Vec::new(),
        queries: Vec::new(),
        makes: false,
        names_in_body: false,
        names_bytes: false,
        numbers: false,
        endless: false,
    }
}

impl Call {
    fn at(mut self, parameter: &'static str, value: &str) -> Self {
        self.at.push((parameter, value.to_owned()));
        self
    }

    fn query(mut self, query: &str) -> Self {
        query.clone_into(&mut self.query);
        self
    }

    fn body(mut self, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        (self.media_type, self.body) = (media_type, body.into());
        self
    }

    fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    fn elsewhere(mut self, parameter: &'static str, value: &str) -> Self {
        self.elsewhere.push((parameter, value.to_owned()));
        self
    }

    fn or_query(mut self, query: String) -> Self {
        self.queries.push(query);
        self
    }

    fn makes(mut self) -> Self {
        self.makes = true;
        self
    }

    fn names_in_body(mut self) -> Self {
        self.names_in_body = true;
        self
    }

    fn names_bytes(mut self) -> Self {
        self.names_bytes = true;
        self
    }

    fn numbers(mut self) -> Self {
        self.numbers = true;
        self
    }

    fn endless(mut self) -> Self {
        self.endless = true;
        self
    }

    /// The path for a tenant, with the parameters of the owner or of the other tenant.
    fn path(&self, template: &str, tenant: &str, by_owner: bool, query: &str) -> String {
        let mut path = template.replace("{tenant}", tenant);
        for (parameter, value) in &self.at {
            let other = self.elsewhere.iter().find(|(name, _)| name == parameter && !by_owner);
            path = path.replace(&format!("{{{parameter}}}"), other.map_or(value, |(_, value)| value));
        }
        assert!(!path.contains('{'), "{}: {path} wants more parameters than it is called with", self.operation);
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{path}{mark}{query}")
    }

    async fn send(&self, client: &Client, method: &Method, path: &str) -> Answer {
        if self.endless {
            return client.begin(path).await;
        }
        let headers = [("content-type", self.media_type)];
        let headers = if self.media_type.is_empty() { &headers[..0] } else { &headers };
        client.send(method.clone(), path, headers, self.body.clone()).await
    }
}

/// A call of each operation by its owner, in an order in which all of them succeed. If an operation occurs twice, the
/// other tenant tries the last call.
async fn calls(all: &Everything) -> Vec<Call> {
    let acme = &all.tenant;
    let gate = |operation: &'static str| call(operation).at("filter", "gate");
    let users = |operation: &'static str| call(operation).at("table", "users");
    let subscription = |operation: &'static str| call(operation).at("subscription", all.subscription("delivered"));
    let delivery = |operation: &'static str, state: &str| call(operation).at("delivery", &all.delivery(state));
    let digest = |digest: &str| json!({"digest": digest});
    let source = json!({"form": "set", "proofs": [{"kind": "open"}], "websub_topics": [MARK]});
    let endpoint = json!({"url": format!("{}/{MARK}", all.receiver.url())});
    let whole = json!({"endpoint": endpoint, "description": MARK, "sources": ["idp"]});
    let next = async |list: &str| acme.get(&format!("{list}?limit=1")).await["next"].as_str().map(str::to_owned);
    let (deliveries, events) = (next("/deliveries").await.expect("more than one"), next("/events").await);
    let replay = json!({"subscription": all.subscription("delivered"), "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"});
    let spare = spare(acme, &endpoint, &replay).await;
    // An endpoint is verified by returning the challenge.
    let knows = |received: &Received| json!({"challenge": received.json()["challenge"]}).to_string();
    all.receiver.otherwise(Reply::status(200).body(knows));
    vec![
        call("cancelReplay").at("replay", &spare.running).elsewhere("replay", &spare.replay),
        call("showTenant"),
        call("changeTenant").json(&json!({"display_name": MARK})),
        call("listAudit").or_query(format!("object={}", all.subscription("delivered"))),
        call("listKeys"),
        call("createKey").json(&json!({"label": MARK})),
        call("showKey").at("key", &all.key),
        call("labelKey").at("key", &all.key).json(&json!({"label": MARK})),
        call("rotateTenantKey").at("key", &spare.rotated).json(&json!({})).elsewhere("key", &all.key),
        call("removeKey").at("key", &spare.key).elsewhere("key", &all.key),
        call("listIssuerKeys"),
        call("createIssuerKey").json(&json!({"algorithm": "EdDSA"})),
        call("showIssuerKey").at("kid", &spare.issuer_key),
        call("activateIssuerKey").at("kid", &spare.issuer_key),
        call("removeIssuerKey").at("kid", &spare.published).elsewhere("kid", &spare.issuer_key),
        call("listSources"),
        call("showSource").at("source", "idp"),
        call("putSource").at("source", "idp").json(&source).makes(),
        call("removeSource").at("source", "spare").elsewhere("source", "idp"),
        call("listFilters"),
        gate("showFilter"),
        gate("uploadFilter").query("activate=false").body("application/wasm", place::filter("redact-claims")).makes(),
        gate("downloadFilter").at("digest", &all.gate[0]).names_bytes(),
        gate("backtestFilter").json(&digest(&all.gate[1])).names_bytes(),
        gate("showRollout"),
        gate("promoteRollout"),
        gate("rollBackFilter"),
        gate("activateFilter").json(&digest(&all.gate[0])).names_bytes(),
        gate("putRollout").json(&json!({"digest": all.gate[1], "mode": "shadow"})),
        gate("endRollout"),
        gate("putRollout").json(&json!({"digest": all.gate[1], "mode": "shadow"})).names_bytes(),
        call("resumeFilter").at("filter", "faulty").json(&json!({})).elsewhere("filter", "gate"),
        gate("listFilterVersions"),
        call("removeFilterVersion")
            .at("filter", "spare")
            .at("digest", &spare.filter_version)
            .elsewhere("filter", "gate")
            .elsewhere("digest", &all.gate[0])
            .names_bytes(),
        call("removeFilter").at("filter", "spare").elsewhere("filter", "gate"),
        call("listTables"),
        users("showTable"),
        users("putTable").body("application/jsonl", format!("{{\"key\":\"{MARK}\",\"value\":1}}\n")).makes(),
        users("downloadTable").at("digest", &all.users[0]).names_bytes(),
        users("activateTable").json(&digest(&all.users[0])).names_bytes(),
        users("rollBackTable"),
        users("listTableVersions"),
        call("removeTableVersion")
            .at("table", "spare")
            .at("digest", &spare.table_version)
            .elsewhere("table", "users")
            .elsewhere("digest", &all.users[0])
            .names_bytes(),
        call("removeTable").at("table", "spare").elsewhere("table", "users"),
        call("listSubscriptions"),
        call("createSubscription").json(&whole).names_in_body(),
        subscription("showSubscription"),
        subscription("replaceSubscription").json(&whole),
        subscription("pauseSubscription").json(&json!({"reason": MARK})),
        subscription("resumeSubscription"),
        subscription("rotateKey").json(&json!({})),
        call("activateKey")
            .at("subscription", &spare.staged[0])
            .elsewhere("subscription", all.subscription("delivered")),
        call("cancelKey").at("subscription", &spare.staged[1]).elsewhere("subscription", all.subscription("delivered")),
        call("rotatePollToken")
            .at("subscription", &spare.polled)
            .json(&json!({}))
            .elsewhere("subscription", all.subscription("delivered")),
        subscription("verifyEndpoint"),
        subscription("testSubscription"),
        subscription("showSubscriptionStatistics").numbers(),
        call("showStatistics").numbers(),
        call("listReplays"),
        call("createReplay").json(&replay).names_in_body(),
        call("showReplay").at("replay", &spare.replay),
        call("removeSubscription")
            .at("subscription", &spare.subscription)
            .elsewhere("subscription", all.subscription("delivered")),
        call("listEvents")
            .or_query("subject=".to_owned() + MARK)
            .or_query(format!("jti={MARK}-first"))
            .or_query(events.map_or_else(|| "source=idp".to_owned(), |cursor| format!("cursor={cursor}"))),
        call("showEvent").at("event", &all.event.event),
        call("listDeliveries")
            .or_query(format!("cursor={deliveries}"))
            .or_query(format!("subscription={}", all.subscription("dead")))
            .or_query(format!("event={}&state=held", all.event.event)),
        delivery("showDelivery", "delivered"),
        delivery("showClaims", "delivered"),
        delivery("showReproduction", "dropped"),
        delivery("reproduceDelivery", "dropped"),
        delivery("redriveDelivery", "dead").json(&json!({"action": "again"})),
        call("redriveDeliveries").json(&json!({"ids": [all.delivery("held")]})),
        call("tailDeliveries").endless(),
        call("removeTenant"),
    ]
}

/// Resources that the owner may lose.
struct Spare {
    key: String,
    rotated: String,
    /// An issuer key that signs, and one that does not sign yet.
    issuer_key: String,
    published: String,
    subscription: String,
    /// Two more, with a staged signing key.
    staged: [String; 2],
    /// One whose receiver polls.
    polled: String,
    /// A replay that has ended, and one that is running.
    replay: String,
    running: String,
    /// Versions that are not needed.
    filter_version: String,
    table_version: String,
}

async fn spare(acme: &Tenant, endpoint: &Value, replay: &Value) -> Spare {
    let id = |made: Answer| made.expect(201).json()["id"].as_str().expect("an id").to_owned();
    let open = json!({"form": "set", "proofs": [{"kind": "open"}]});
    acme.client.put(&acme.path("/sources/spare"), &open).await.expect(201);
    acme.upload("spare", place::filter("redact-claims")).await.expect(201);
    acme.table("spare", &[("a", json!(1))]).await;
    let key = id(acme.client.post(&acme.path("/keys"), &json!({})).await);
    let rotated = id(acme.client.post(&acme.path("/keys"), &json!({})).await);
    let mut issuer_keys = [String::new(), String::new()];
    for kid in &mut issuer_keys {
        let made = acme.client.post(&acme.path("/issuer-keys"), &json!({"algorithm": "ES256"})).await.expect(201);
        made.json()["kid"].as_str().expect("a kid").clone_into(kid);
    }
    let [issuer_key, published] = issuer_keys;
    let slow = json!({"subscription": replay["subscription"], "since": replay["since"], "per_second": 1});
    let running = id(acme.client.post(&acme.path("/replays"), &slow).await);
    let nobody = json!({"subscription": replay["subscription"], "since": replay["since"], "subject": MARK});
    let replay = id(acme.client.post(&acme.path("/replays"), &nobody).await);
    until("a replay of nothing is done", async || {
        (acme.get(&format!("/replays/{replay}")).await["state"] == "done").then_some(())
    })
    .await;
    let subscription = json!({"endpoint": endpoint});
    let subscription = id(acme.client.post(&acme.path("/subscriptions"), &subscription).await);
    let versions = async |list: &str| {
        let listed = acme.get(list).await;
        listed["items"][0]["digest"].as_str().expect("a version").to_owned()
    };
    // The oldest of three is neither active nor the target of a rollback.
    for filter in ["redact-claims", "drop-by-type", "flag-suspicious-login"] {
        acme.upload("spare", place::filter(filter)).await;
        acme.table("spare", &[(filter, json!(1))]).await;
    }
    let filter_version = versions("/filters/spare/versions").await;
    let table_version = versions("/tables/spare/versions").await;
    let mut staged = [String::new(), String::new()];
    for staged in &mut staged {
        let asked = json!({"endpoint": endpoint, "signing": {"scheme": "hub"}});
        *staged = id(acme.client.post(&acme.path("/subscriptions"), &asked).await);
        let rotate = acme.path(&format!("/subscriptions/{staged}/rotate-key"));
        acme.client.post(&rotate, &json!({})).await.expect(200);
    }
    let signed = json!({"audience": [MARK], "algorithm": "ES256"});
    let polled = json!({"poll": {}, "format": "signed_set", "signed_set": signed});
    let polled = id(acme.client.post(&acme.path("/subscriptions"), &polled).await);
    Spare {
        key,
        rotated,
        issuer_key,
        published,
        subscription,
        staged,
        polled,
        replay,
        running,
        filter_version,
        table_version,
    }
}

/// Suspends a filter, for its owner to resume.
async fn suspended(all: &Everything) {
    let acme = &all.tenant;
    acme.upload("faulty", place::filter("redact-claims")).await.expect(201);
    let source = acme.source("faulty", Seed::Open).await;
    let chain = json!([{"filter": "faulty", "grants": ["config"]}]);
    let subscription = acme.subscribe(&all.receiver).chain(chain).with("sources", json!(["faulty"])).create().await;
    for number in 0..FAULTS_MAX {
        let event = source.accept(everything::marked(&format!("faulty-{number}"))).await;
        acme.delivery_in("held", &subscription.delivery_of(&event)).await;
    }
    assert!(acme.get("/filters/faulty").await["suspended"].is_object(), "it faulted too often");
    acme.client.delete(&subscription.path("")).await.expect(204);
}

/// The operations below a tenant's path: id, method, path.
async fn operations(host: &Host) -> BTreeMap<String, (Method, String)> {
    let document = host.stranger().get("/openapi.json").await.expect(200).json();
    let mut found = BTreeMap::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let id = operation["operationId"].as_str().expect("an id").to_owned();
            if path.starts_with(BELOW) {
                let method = method.to_ascii_uppercase().parse().expect("a method");
                assert!(found.insert(id, (method, path.clone())).is_none(), "two operations have one id");
            }
        }
    }
    found
}

/// Everything that the owner can read.
async fn state(all: &Everything, calls: &[Call], operations: &BTreeMap<String, (Method, String)>) -> Vec<String> {
    let mut shown = Vec::new();
    for call in calls.iter().filter(|call| !call.numbers && !call.endless) {
        let (method, template) = &operations[call.operation];
        if method == Method::GET {
            let path = call.path(template, &all.tenant.name, false, &call.query);
            let answer = all.tenant.client.get(&path).await.expect(200);
            shown.push(format!("{path}: {:?} {}", answer.header("etag"), answer.text()));
        }
    }
    shown
}

/// The owner's secrets in an answer, except for words that the other tenant sent itself.
fn leaked<'a>(answer: &Answer, secrets: &'a BTreeSet<String>, sent: &str) -> Option<&'a str> {
    let said = format!("{:?} {}", answer.headers, answer.text());
    secrets.iter().find(|secret| said.contains(secret.as_str()) && !sent.contains(secret.as_str())).map(String::as_str)
}

#[tokio::test]
async fn no_operation_reaches_another_tenant() {
    let config =
        format!("[quota]\nfilter_faults_max = {FAULTS_MAX}\n[server]\npublic_url = \"https://edge.example\"\n");
    let host = Host::with().config(&config).start().await;
    let all = Everything::at(&host).await;
    suspended(&all).await;
    let (operations, calls) = (operations(&host).await, calls(&all).await);
    let known: BTreeSet<_> = calls.iter().map(|call| call.operation.to_owned()).collect();
    let documented: BTreeSet<_> = operations.keys().cloned().collect();
    assert_eq!(known, documented, "each operation of a tenant is told in `calls`, and no other");

    // Every operation succeeds for its owner.
    let mut secrets = BTreeSet::from([MARK.to_owned(), all.key.clone(), all.event.event.clone()]);
    secrets
        .extend(calls.iter().flat_map(|call| &call.at).filter(|(name, _)| *name == "kid").map(|(_, kid)| kid.clone()));
    secrets.extend(all.gate.iter().chain(&all.users).cloned());
    secrets.extend(all.subscriptions.iter().flat_map(|(state, id)| [id.clone(), all.delivery(state)]));
    host.tenant("gone").await;
    for call in &calls {
        let (method, template) = &operations[call.operation];
        // Changing and removing a tenant is reserved for the operator.
        let by_operator = ["changeTenant", "removeTenant"].contains(&call.operation);
        let (client, tenant) =
            if by_operator { (host.operator(), "gone") } else { (&all.tenant.client, all.tenant.name.as_str()) };
        let answer = call.send(client, method, &call.path(template, tenant, true, &call.query)).await;
        assert!(
            (200..300).contains(&answer.status),
            "{} to its owner: {} {}",
            call.operation,
            answer.status,
            answer.text()
        );
    }

    // Operations started above must finish first.
    let rests = async || state(&all, &calls, &operations).await;
    let before = until("the owner's deliveries have ended", async || {
        all.at_rest().await;
        let (one, two) = (rests().await, rests().await);
        (one == two).then_some(one)
    })
    .await;
    for shown in &before {
        let (path, said) = shown.split_once(": ").expect("path and answer");
        let told = secrets.iter().find(|secret| said.contains(secret.as_str()));
        assert!(told.is_some(), "{path} tells its owner nothing that could be looked for: {said}");
    }

    let last: BTreeMap<_, _> = calls.iter().map(|call| (call.operation, call)).collect();
    let mut faults = Vec::new();
    for call in last.values() {
        faults.extend(tried(&host, &all, call, &operations[call.operation], &secrets).await);
    }
    assert!(faults.is_empty(), "{} answers reach too far:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(rests().await, before, "nothing of the owner's has changed");
}

/// Allowed answers on the owner's path.
const ELSEWHERE: &[u16] = &[403, 404];
/// Allowed answers on the other tenant's own path for a resource it does not have; 403 for operations of the operator.
const NOT_THERE: &[u16] = &[403, 404, 422];
/// Allowed answers on the other tenant's own path if the resource may be its own; 400 for a foreign cursor.
const ITS_OWN: &[u16] = &[200, 201, 204, 400, 403, 404, 409, 422];

/// Everything that another tenant learns through one operation and should not.
async fn tried(
    host: &Host,
    all: &Everything,
    call: &Call,
    (method, template): &(Method, String),
    secrets: &BTreeSet<String>,
) -> Vec<String> {
    let name = call.operation.to_ascii_lowercase();
    // One tenant with no resources besides those the call creates, and one with resources of the same names.
    let bare = host.tenant(&format!("{name}-bare")).await;
    let namesake = host.tenant(&format!("{name}-namesake")).await;
    if call.names_bytes {
        namesake.upload("gate", place::filter("enrich-from-table")).await.expect(201);
        namesake.table("users", &[("other", json!(1))]).await;
    }
    let mut faults = Vec::new();
    let named = call.names_in_body || !call.at.is_empty();
    for query in std::iter::once(&call.query).chain(&call.queries) {
        for (by, at, statuses) in [
            (&bare, &all.tenant, ELSEWHERE),
            (&bare, &bare, if named && !call.makes { NOT_THERE } else { ITS_OWN }),
            (&namesake, &namesake, if call.names_bytes { NOT_THERE } else { ITS_OWN }),
        ] {
            let path = call.path(template, &at.name, false, query);
            let answer = call.send(&by.client, method, &path).await;
            let what = format!("{} by {}, {method} {path}", call.operation, by.name);
            // A cursor is valid for one tenant only.
            let is_foreign = query.contains("cursor=") && answer.not_the_problem(400, "bad_cursor").is_none();
            if !statuses.contains(&answer.status) && !is_foreign {
                faults.push(format!("{what}: {} {}", answer.status, answer.text()));
            }
            // The answer may repeat the tenant's own input, and its digest.
            let sent = format!("{path} {} {}", String::from_utf8_lossy(&call.body), everything::digest(&call.body));
            if let Some(word) = leaked(&answer, secrets, &sent) {
                faults.push(format!("{what}: tells `{word}`: {}", answer.text()));
            }
        }
        let path = call.path(template, &all.tenant.name, false, query);
        let answer = call.send(&host.stranger(), method, &path).await;
        faults.extend(answer.not_the_problem(401, "bad_key").map(|why| format!("{} by nobody: {why}", call.operation)));
    }
    faults
}
