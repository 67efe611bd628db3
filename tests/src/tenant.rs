//! Tenants: everything is created through the API, as a tenant would do.

use http::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::place;
use crate::receiver::{Received, Receiver};
use crate::signature::Trust;
use crate::source::{Accepted, Seed, Source};
use crate::wait::until;

/// A tenant and its key.
#[derive(Clone)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Its API key.
    pub key: String,
    /// A client with that key.
    pub client: Client,
    api: String,
}

impl Tenant {
    /// An existing tenant with one of its keys, on the host of `client`.
    pub fn new(name: &str, key: &str, client: &Client) -> Self {
        let api = format!("/api/v1/tenants/{name}");
        Self { name: name.to_owned(), key: key.to_owned(), client: client.with_key(key), api }
    }

    /// A path below the tenant's own, such as `/filters`.
    pub fn path(&self, below: &str) -> String {
        format!("{}{below}", self.api)
    }

    /// The document at a path below the tenant's own, which must exist.
    pub async fn get(&self, below: &str) -> Value {
        self.client.get(&self.path(below)).await.expect(200).json()
    }

    /// Creates a source.
    pub async fn source(&self, name: &str, seed: Seed) -> Source {
        self.source_with(name, seed, &json!({})).await
    }

    /// Creates a source with further settings.
    pub async fn source_with(&self, name: &str, seed: Seed, more: &Value) -> Source {
        let mut settings = seed.settings();
        for (key, value) in more.as_object().expect("an object of settings") {
            settings[key] = value.clone();
        }
        let made = self.client.put(&self.path(&format!("/sources/{name}")), &settings).await.expect(201).json();
        Source::new(made["ingest_path"].as_str().expect("an ingest path"), seed, &self.client)
    }

    /// An existing source of the product `seed`; `path` is the path for its events.
    pub fn known_source(&self, path: &str, seed: Seed) -> Source {
        Source::new(path, seed, &self.client)
    }

    /// An existing subscription with the standard scheme without Ed25519, and the secret that was shown once.
    pub fn known_subscription(&self, id: &str, secret: &str) -> Subscription {
        let trust = Trust::of("standard", secret, None);
        Subscription { id: id.to_owned(), secret: secret.to_owned(), trust, tenant: self.clone() }
    }

    /// Uploads an example filter under its own name, and returns its digest.
    pub async fn filter(&self, name: &str) -> String {
        let shown = self.upload(name, place::filter(name)).await;
        assert!(matches!(shown.status, 200 | 201), "{}", shown.text());
        shown.json()["active"].as_str().expect("an uploaded filter is active").to_owned()
    }

    /// Uploads bytes as a filter.
    pub async fn upload(&self, name: &str, wasm: Vec<u8>) -> Answer {
        let headers = [("content-type", "application/wasm")];
        self.client.send(Method::PUT, &self.path(&format!("/filters/{name}")), &headers, wasm).await
    }

    /// Uploads a look-up table as JSON lines.
    pub async fn table(&self, name: &str, rows: &[(&str, Value)]) {
        let lines = rows.iter().map(|(key, value)| json!({"key": key, "value": value}).to_string() + "\n");
        let lines: String = lines.collect();
        let headers = [("content-type", "application/jsonl")];
        let sent = self.client.send(Method::PUT, &self.path(&format!("/tables/{name}")), &headers, lines).await;
        assert!(matches!(sent.status, 200 | 201), "{}", sent.text());
    }

    /// Starts building a subscription to this receiver.
    pub fn subscribe(&self, receiver: &Receiver) -> NewSubscription<'_> {
        self.subscribe_url(&receiver.url())
    }

    /// Starts building a subscription to this URL.
    pub fn subscribe_url(&self, url: &str) -> NewSubscription<'_> {
        NewSubscription { tenant: self, asked: json!({"endpoint": {"url": url}}) }
    }

    /// The imports of a filter's active version: the `grants` of a binding for it.
    pub async fn needs(&self, filter: &str) -> Value {
        let shown = self.get(&format!("/filters/{filter}")).await;
        let versions = shown["versions"].as_array().expect("versions");
        let active = versions.iter().find(|version| version["active"] == true);
        active.unwrap_or_else(|| panic!("no active version: {shown}"))["needs"].clone()
    }

    /// One delivery with its attempts.
    pub async fn delivery(&self, id: &str) -> Value {
        self.get(&format!("/deliveries/{id}")).await
    }

    /// The deliveries that match a query string, newest first.
    pub async fn deliveries(&self, query: &str) -> Vec<Value> {
        self.get(&format!("/deliveries?limit=200&{query}")).await["items"].as_array().expect("items").clone()
    }

    /// Waits until a delivery is in a state, and returns its record.
    pub async fn delivery_in(&self, state: &str, id: &str) -> Value {
        let mut last = Value::Null;
        until(&format!("the delivery {id} is {state}"), async || {
            let answer = self.client.get(&self.path(&format!("/deliveries/{id}"))).await;
            // It exists once the event has been fanned out.
            if answer.status == 404 {
                return None;
            }
            last = answer.expect(200).json();
            let rests = last["state"] != "due";
            assert!(!rests || last["state"] == state, "the delivery {id} was to be {state}: {last}");
            (last["state"] == state).then(|| last.clone())
        })
        .await
    }

    /// Waits until a delivery is in a state and has been updated since `updated_at`.
    pub async fn delivery_in_after(&self, state: &str, id: &str, updated_at: &Value) -> Value {
        until(&format!("the delivery {id} is {state} again"), async || {
            let now = self.delivery(id).await;
            (now["state"] == state && now["updated_at"] != *updated_at).then_some(now)
        })
        .await
    }

    /// Requests a redrive of a delivery.
    pub async fn redrive(&self, id: &str, action: &str) -> Answer {
        self.client.post(&self.path(&format!("/deliveries/{id}/redrive")), &json!({"action": action})).await
    }
}

/// A subscription that has not been created yet.
pub struct NewSubscription<'a> {
    tenant: &'a Tenant,
    asked: Value,
}

impl NewSubscription<'_> {
    /// The filters, in order.
    pub fn chain(self, chain: Value) -> Self {
        self.with("chain", chain)
    }

    /// The signature scheme of deliveries.
    pub fn signing(self, scheme: &str, ed25519: bool) -> Self {
        self.with("signing", json!({"scheme": scheme, "ed25519": ed25519}))
    }

    /// The intervals between attempts, in seconds.
    pub fn retry(self, waits: &[u32]) -> Self {
        self.with("retry", json!(waits))
    }

    /// The format of the body.
    pub fn format(self, format: &str) -> Self {
        self.with("format", json!(format))
    }

    /// Sets any member of the request.
    pub fn with(mut self, member: &str, value: Value) -> Self {
        self.asked[member] = value;
        self
    }

    /// Sends the request and returns any answer.
    pub async fn ask(self) -> Answer {
        self.tenant.client.post(&self.tenant.path("/subscriptions"), &self.asked).await
    }

    /// Creates the subscription.
    pub async fn create(self) -> Subscription {
        let tenant = self.tenant.clone();
        let made = self.ask().await.expect(201).json();
        let id = made["id"].as_str().expect("an id").to_owned();
        let secret = made["signing_secret"].as_str().expect("a secret made here is shown once").to_owned();
        let scheme = made["signing"]["scheme"].as_str().expect("a scheme");
        let trust = Trust::of(scheme, &secret, made["signing"]["keys"][0]["public"].as_str());
        Subscription { id, secret, trust, tenant }
    }

    /// Replaces an existing subscription, whose keys are kept. Returns its new document.
    pub async fn replace(self, subscription: &Subscription) -> Value {
        self.tenant.client.put(&subscription.path(""), &self.asked).await.expect(200).json()
    }
}

/// A subscription as seen by its owner and its receiver.
pub struct Subscription {
    /// Its id.
    pub id: String,
    /// Its signing secret, shown once.
    pub secret: String,
    /// The key with which its receiver verifies signatures.
    pub trust: Trust,
    tenant: Tenant,
}

impl Subscription {
    /// Verifies a delivery's signature; the error gives the reason.
    pub fn verify(&self, received: &Received) -> Result<(), String> {
        self.trust.verify(&received.headers, &received.body)
    }

    /// The id of the first delivery of an event to this subscription, derived from both ids.
    pub fn delivery_of(&self, event: &Accepted) -> String {
        self.delivery_of_any()(&event.event)
    }

    /// A function that derives it from an event's id without borrowing the subscription.
    pub fn delivery_of_any(&self) -> impl Fn(&str) -> String + Clone + Send + 'static {
        let body = |id: &str| id.split_once('_').expect("an id has a prefix").1.to_owned();
        let subscription = body(&self.id);
        move |event| format!("dlv_{}_{subscription}_0", body(event))
    }

    /// The current document of the subscription.
    pub async fn show(&self) -> Value {
        self.tenant.get(&format!("/subscriptions/{}", self.id)).await
    }

    /// Pauses the subscription.
    pub async fn pause(&self) {
        self.tenant.client.post(&self.path("/pause"), &json!({"reason": "a story"})).await.expect(200);
    }

    /// Resumes the subscription.
    pub async fn resume(&self) {
        self.tenant.client.post(&self.path("/resume"), &json!({})).await.expect(200);
    }

    /// Its path, or one below it.
    pub fn path(&self, below: &str) -> String {
        self.tenant.path(&format!("/subscriptions/{}{below}", self.id))
    }
}
