//! Sets up the demo through the API: two tenants with their sources, tables, filters and subscriptions.

use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use setgate_base::crypto;
use setgate_domain::source::MacHeader;

use super::receiver::{Receiver, Trust};
use super::signed;
use crate::cli::client::Client;
use crate::cli::emit::Proof;
use crate::cli::out::say;

/// Event types that acme's first subscription drops. The report uses them to predict which events must not arrive.
const DROPPED_TYPES: [&str; 3] = ["*/accessTokenIssued", "*/sessionPresented", "*/session-presented"];

pub(super) struct Stage {
    pub(super) sender: Client,
    pub(super) sources: Vec<SourceOf>,
    pub(super) subscriptions: Vec<SubscriptionOf>,
    tenants: Vec<TenantOf>,
}

/// A tenant, its key and its client.
struct TenantOf {
    name: &'static str,
    key: String,
    client: Client,
}

/// The source of a product's events.
pub(super) struct SourceOf {
    pub(super) seed: &'static str,
    pub(super) tenant: &'static str,
    pub(super) path: String,
    pub(super) proof: Proof,
    pub(super) secret: String,
}

/// A subscription created by the demo.
pub(super) struct SubscriptionOf {
    pub(super) id: String,
    pub(super) tenant: &'static str,
    pub(super) title: &'static str,
    /// The products it receives events of.
    pub(super) seeds: &'static [&'static str],
    pub(super) drops: bool,
    pub(super) client: Client,
}

impl SubscriptionOf {
    /// Whether its filter is configured to drop this type.
    pub(super) fn drops(&self, uri: &str) -> bool {
        self.drops && DROPPED_TYPES.iter().any(|pattern| setgate_domain::subscription::glob(pattern, uri))
    }
}

impl Stage {
    pub(super) fn source_of(&self, seed: &str) -> Option<&SourceOf> {
        self.sources.iter().find(|source| source.seed == seed)
    }

    /// The tenants with their clients.
    pub(super) fn tenants(&self) -> impl Iterator<Item = (&'static str, &Client)> {
        self.tenants.iter().map(|tenant| (tenant.name, &tenant.client))
    }

    pub(super) fn print_things_to_try(&self, base: &str) {
        say!("");
        say!("The host keeps running; stop it with Ctrl-C. Commands to try in another shell:");
        for TenantOf { name: tenant, key, .. } in &self.tenants {
            say!("  curl -H 'Authorization: Bearer {key}' '{base}/api/v1/tenants/{tenant}/deliveries?limit=3'");
        }
        if let Some(TenantOf { name: tenant, key, .. }) = self.tenants.first() {
            say!("  curl -H 'Authorization: Bearer {key}' {base}/api/v1/tenants/{tenant}/filters");
        }
        say!("  curl {base}/metrics");
    }
}

/// URL under which the receivers know the host. Nothing is sent to it.
pub(super) const PUBLIC_URL: &str = "https://edge.example";
/// `aud` of signed SETs.
const AUDIENCE: &str = "https://receiver.example/";

/// The way of deliveries, and their signature.
enum Way {
    /// A webhook under this scheme.
    Webhook { scheme: &'static str, ed25519: bool },
    /// Signed SETs by push (RFC 8935), under this algorithm.
    Push(&'static str),
    /// Signed SETs that the receiver fetches (RFC 8936), under this algorithm.
    Poll(&'static str),
}

impl Way {
    fn algorithm(&self) -> Option<&'static str> {
        match self {
            Self::Webhook { .. } => None,
            Self::Push(algorithm) | Self::Poll(algorithm) => Some(algorithm),
        }
    }
}

struct Plan {
    tenant: &'static str,
    title: &'static str,
    seeds: &'static [&'static str],
    sources: &'static [&'static str],
    way: Way,
    format: &'static str,
    chain: Value,
    drops: bool,
}

pub(super) async fn set(operator: &Client, base: &str, receiver: &Receiver, filters: &Path) -> anyhow::Result<Stage> {
    let salt = hex::encode(crypto::random_bytes::<16>());
    let redact = json!({"filter": "redact-claims", "grants": ["config"], "secrets": {"salt": salt}});
    let plans = [
        Plan {
            tenant: "acme",
            title: "drop, redact, enrich",
            seeds: &["wso2", "asgardeo", "set"],
            sources: &[],
            way: Way::Webhook { scheme: "standard", ed25519: false },
            format: "set",
            chain: json!([
                {"filter": "drop-by-type", "grants": ["config"], "config": {"drop": DROPPED_TYPES}},
                redact,
                {"filter": "enrich-from-table", "grants": ["config", "lookup"]},
            ]),
            drops: true,
        },
        Plan {
            tenant: "acme",
            title: "flag, own form",
            seeds: &["wso2", "asgardeo"],
            sources: &["wso2", "asgardeo"],
            way: Way::Webhook { scheme: "wso2", ed25519: false },
            format: "original",
            chain: json!([{"filter": "flag-suspicious-login", "grants": ["config"], "on_fault": "open"}]),
            drops: false,
        },
        Plan {
            tenant: "acme",
            title: "as it came",
            seeds: &["set"],
            sources: &["ssf"],
            way: Way::Webhook { scheme: "hub", ed25519: false },
            format: "set",
            chain: json!([]),
            drops: false,
        },
        Plan {
            tenant: "globex",
            title: "flag, translate",
            seeds: &["logto", "platform"],
            sources: &[],
            way: Way::Webhook { scheme: "standard", ed25519: true },
            format: "set",
            chain: json!([{"filter": "flag-suspicious-login", "grants": ["config"]}, {"filter": "translate-to-caep"}]),
            drops: false,
        },
        Plan {
            tenant: "globex",
            title: "redact, own form",
            seeds: &["logto"],
            sources: &["logto"],
            way: Way::Webhook { scheme: "logto", ed25519: false },
            format: "original",
            chain: json!([redact]),
            drops: false,
        },
        Plan {
            tenant: "acme",
            title: "signed, pushed",
            seeds: &["wso2", "asgardeo", "set"],
            sources: &[],
            way: Way::Push("RS256"),
            format: "signed_set",
            chain: json!([redact]),
            drops: false,
        },
        Plan {
            tenant: "globex",
            title: "signed, polled",
            seeds: &["logto", "platform"],
            sources: &[],
            way: Way::Poll("EdDSA"),
            format: "signed_set",
            chain: json!([{"filter": "translate-to-caep"}]),
            drops: false,
        },
    ];

    let mut stage =
        Stage { sender: Client::new(base, None)?, sources: Vec::new(), subscriptions: Vec::new(), tenants: Vec::new() };
    for tenant in ["acme", "globex"] {
        operator.json(Method::POST, "/api/v1/tenants", Some(&json!({"id": tenant}))).await?;
        let key = operator
            .json(Method::POST, &format!("/api/v1/tenants/{tenant}/keys"), Some(&json!({"label": "demo"})))
            .await?;
        let key = key["key"].as_str().context("a key")?.to_owned();
        let client = Client::new(base, Some(key.clone()))?;
        let api = format!("/api/v1/tenants/{tenant}");
        stage.tenants.push(TenantOf { name: tenant, key, client: client.clone() });
        sources(&client, &api, tenant, &mut stage).await?;
        tables(&client, &api).await?;
        upload_filters(&client, &api, filters, plans.iter().filter(|plan| plan.tenant == tenant)).await?;
        for (number, plan) in plans.iter().enumerate().filter(|(_, plan)| plan.tenant == tenant) {
            let subscription = subscribe((base, &client, &api), receiver, number, plan).await?;
            stage.subscriptions.push(subscription);
        }
    }
    Ok(stage)
}

async fn sources(client: &Client, api: &str, tenant: &'static str, stage: &mut Stage) -> anyhow::Result<()> {
    // Tenant, seed, name, form, and the scheme of the signatures: a bearer token if there is none.
    let all = [
        ("acme", "wso2", "wso2", "wso2", Some(MacHeader::Wso2)),
        ("acme", "asgardeo", "asgardeo", "wso2", Some(MacHeader::Hub)),
        ("acme", "set", "ssf", "set", None),
        ("globex", "logto", "logto", "logto", Some(MacHeader::Logto)),
        ("globex", "platform", "platform", "platform", Some(MacHeader::Standard)),
    ];
    for (_, seed, name, form, header) in all.into_iter().filter(|source| source.0 == tenant) {
        let secret = match header {
            Some(MacHeader::Standard) => format!("whsec_{}", STANDARD.encode(crypto::random_bytes::<32>())),
            _ => hex::encode(crypto::random_bytes::<32>()),
        };
        let proof = header.map_or(Proof::Bearer, |header| Proof::Signature(setgate_dialects::scheme_of_proof(header)));
        let proofs = match header {
            Some(header) => json!([{"kind": "hmac", "header": header, "secrets": [secret]}]),
            None => json!([{"kind": "bearer", "tokens": [secret]}]),
        };
        let source = json!({"form": form, "proofs": proofs});
        let shown = client.json(Method::PUT, &format!("{api}/sources/{name}"), Some(&source)).await?;
        let path = shown["ingest_path"].as_str().context("an ingest path")?.to_owned();
        stage.sources.push(SourceOf { seed, tenant, path, proof, secret });
    }
    Ok(())
}

async fn tables(client: &Client, api: &str) -> anyhow::Result<()> {
    for (name, rows) in super::tables::tables() {
        client.upload(&format!("{api}/tables/{name}"), "application/jsonl", rows.into()).await?;
    }
    Ok(())
}

async fn upload_filters<'a>(
    client: &Client,
    api: &str,
    folder: &Path,
    plans: impl Iterator<Item = &'a Plan>,
) -> anyhow::Result<()> {
    let mut names: Vec<_> = plans
        .flat_map(|plan| plan.chain.as_array().into_iter().flatten())
        .filter_map(|binding| binding["filter"].as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let file = folder.join(format!("{name}.wasm"));
        if !file.exists() {
            bail!("there is no {}: build the example filters with `cargo xtask guests`", file.display());
        }
        let wasm = std::fs::read(&file).with_context(|| file.display().to_string())?;
        client.upload(&format!("{api}/filters/{name}"), "application/wasm", wasm.into()).await?;
    }
    Ok(())
}

async fn subscribe(
    (base, client, api): (&str, &Client, &str),
    receiver: &Receiver,
    number: usize,
    plan: &Plan,
) -> anyhow::Result<SubscriptionOf> {
    let who = format!("receiver-{number}");
    if let Some(algorithm) = plan.way.algorithm() {
        client.json(Method::POST, &format!("{api}/issuer-keys"), Some(&json!({"algorithm": algorithm}))).await?;
    }
    let mut asked = json!({
        "description": plan.title,
        "sources": plan.sources,
        "chain": plan.chain,
        "format": plan.format,
        "retry": [1, 1, 2, 5],
    });
    let endpoint = json!({"url": format!("http://{}/{who}", receiver.address)});
    match plan.way {
        Way::Webhook { scheme, ed25519 } => {
            asked["endpoint"] = endpoint;
            asked["signing"] = json!({"scheme": scheme, "ed25519": ed25519});
        }
        Way::Push(_) => asked["endpoint"] = endpoint,
        Way::Poll(_) => asked["poll"] = json!({}),
    }
    if let Some(algorithm) = plan.way.algorithm() {
        asked["signed_set"] = json!({"audience": [AUDIENCE], "algorithm": algorithm});
    }
    let made = client.json(Method::POST, &format!("{api}/subscriptions"), Some(&asked)).await?;
    let secret = || Ok::<_, anyhow::Error>(made["signing_secret"].as_str().context("a signing secret")?.to_owned());
    let trust = match plan.way {
        Way::Webhook { scheme: "standard", ed25519: true } => {
            let public = made["signing"]["keys"][0]["public"].as_str().context("a public key")?;
            Trust::StandardEd25519(public.to_owned())
        }
        Way::Webhook { scheme, .. } => match scheme {
            "standard" => Trust::Standard(secret()?),
            "hub" => Trust::HexMac { header: "x-hub-signature", prefix: "sha256=", secret: secret()? },
            "wso2" => Trust::HexMac { header: "x-wso2-event-signature", prefix: "sha256=", secret: secret()? },
            _ => Trust::HexMac { header: "logto-signature-sha-256", prefix: "", secret: secret()? },
        },
        Way::Push(_) | Way::Poll(_) => {
            let issuer = format!("{PUBLIC_URL}/t/{}", plan.tenant);
            Trust::Set(signed::trust(client, plan.tenant, issuer, AUDIENCE).await?)
        }
    };
    receiver.trust(&who, trust);
    if let Way::Poll(_) = plan.way {
        let path = made["poll"]["path"].as_str().context("the path of polls")?;
        let token = made["poll_token"].as_str().context("a token for polls")?.to_owned();
        signed::start_polling(receiver, (base, path, token), who, receiver.stopped())?;
    }
    Ok(SubscriptionOf {
        id: made["id"].as_str().context("an id")?.to_owned(),
        tenant: plan.tenant,
        title: plan.title,
        seeds: plan.seeds,
        drops: plan.drops,
        client: client.clone(),
    })
}
