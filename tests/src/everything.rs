//! A tenant that owns one of everything, so that every route has data to return. All its data contains a mark that
//! identifies it.

use serde_json::{Value, json};

use crate::{Accepted, Host, Receiver, Seed, Source, Tenant, event, place, until};

/// Contained in every free text of this tenant: subjects, reasons, labels, URLs, rows.
pub const MARK: &str = "mark-0b7e4d";

/// The tenant and its resources.
pub struct Everything {
    /// The tenant, `acme`.
    pub tenant: Tenant,
    /// The receiver of its deliveries.
    pub receiver: Receiver,
    /// Its source `idp`.
    pub source: Source,
    /// The versions of its filter `gate`: the active one, and one that runs as a shadow in a rollout.
    pub gate: [String; 2],
    /// The versions of its table `users`: the previous one and the active one.
    pub users: [String; 2],
    /// Its subscriptions, one for each final state of a delivery, and a paused one.
    pub subscriptions: Vec<(&'static str, String)>,
    /// The event that it accepted.
    pub event: Accepted,
    /// The id of another key of the tenant besides [`Tenant::key`].
    pub key: String,
}

impl Everything {
    /// Creates it on a host.
    pub async fn at(host: &Host) -> Self {
        let tenant = host.tenant_with("acme", json!({"display_name": MARK})).await;
        let source = tenant.source_with("idp", Seed::Open, &json!({"websub_topics": [MARK]})).await;
        let gate = [tenant.upload("gate", place::filter("redact-claims")).await, waiting(&tenant).await];
        let gate = gate.map(|answer| newest(&answer.expect(201).json()));
        tenant.filter("drop-by-type").await;
        let mut users = Vec::new();
        for row in ["before", MARK] {
            tenant.table("users", &[(row, json!(MARK))]).await;
            users.push(tenant.get("/tables/users").await["digest"].as_str().expect("a digest").to_owned());
        }
        let receiver = Receiver::start().await;
        let subscriptions = subscriptions(&tenant, &receiver).await;
        let shadow = json!({"digest": gate[1], "mode": "shadow"});
        tenant.client.put(&tenant.path("/filters/gate/rollout"), &shadow).await.expect(201);
        let key = tenant.client.post(&tenant.path("/keys"), &json!({"label": MARK})).await.expect(201).json();
        let key = key["id"].as_str().expect("an id").to_owned();
        let users = users.try_into().expect("two versions");
        let event = source.accept(marked("first")).await;
        let all = Self { tenant, receiver, source, gate, users, subscriptions, event, key };
        all.at_rest().await;
        all
    }

    /// The id of the subscription whose deliveries end in that state.
    pub fn subscription(&self, state: &str) -> &str {
        let found = self.subscriptions.iter().find(|(known, _)| *known == state);
        &found.unwrap_or_else(|| panic!("there is no subscription for `{state}`")).1
    }

    /// The id of the event's delivery that ended in that state.
    pub fn delivery(&self, state: &str) -> String {
        let body = |id: &str| id.split_once('_').expect("an id has a prefix").1.to_owned();
        format!("dlv_{}_{}_0", body(&self.event.event), body(self.subscription(state)))
    }

    /// Waits until each delivery of its event has reached its final state.
    pub async fn at_rest(&self) {
        for (state, _) in &self.subscriptions {
            let id = self.delivery(state);
            until(&format!("the delivery {id} is {state}"), async || {
                let answer = self.tenant.client.get(&self.tenant.path(&format!("/deliveries/{id}"))).await;
                (answer.status == 200 && answer.json()["state"] == *state).then_some(())
            })
            .await;
        }
    }
}

/// A SET about a marked subject.
pub fn marked(name: &str) -> String {
    event::set(&format!("{MARK}-{name}")).replace("jane@", &format!("{MARK}@"))
}

/// A second, inactive version of `gate`.
async fn waiting(tenant: &Tenant) -> crate::Answer {
    let path = tenant.path("/filters/gate?activate=false");
    let headers = [("content-type", "application/wasm")];
    tenant.client.send(http::Method::PUT, &path, &headers, place::filter("drop-by-type")).await
}

fn newest(filter: &Value) -> String {
    let versions = filter["versions"].as_array().expect("versions");
    versions.last().and_then(|version| version["digest"].as_str()).expect("a digest").to_owned()
}

async fn subscriptions(tenant: &Tenant, receiver: &Receiver) -> Vec<(&'static str, String)> {
    let to = |url: String| tenant.subscribe_url(&url).with("description", json!(MARK)).with("sources", json!(["idp"]));
    let here = || to(format!("{}/{MARK}", receiver.url()));
    // Without its salt, `redact-claims` fails on every event.
    let held = json!([{"filter": "gate", "grants": ["config"], "on_fault": "hold"}]);
    let drop = json!({"drop": ["session-revoked"], "keep": [MARK]});
    let dropped = json!([{"filter": "drop-by-type", "grants": ["config"], "config": drop}]);
    let nowhere = format!("http://{}/{MARK}", Receiver::nowhere().await);
    let mut made = Vec::new();
    for (state, subscription) in [
        ("delivered", here()),
        ("held", here().chain(held)),
        ("dropped", here().chain(dropped)),
        ("dead", to(nowhere).retry(&[])),
        ("due", here()),
    ] {
        made.push((state, subscription.create().await.id));
    }
    let pause = tenant.path(&format!("/subscriptions/{}/pause", made.last().expect("the last one").1));
    tenant.client.post(&pause, &json!({"reason": MARK})).await.expect(200);
    made
}

/// The digest that the host computes for these bytes.
pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}
