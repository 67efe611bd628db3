//! What a subscription looks like when it is sent in, and when it is shown.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{CHAIN_MAX, HEADERS_MAX, OVERLAP_HOURS_MAX, PATTERNS_MAX, SECRETS_MAX};
use crate::control::TEXT_CHARS_MAX;
use crate::domain::endpoint::EndpointTls;
use crate::domain::filter::{Binding, Grant, Reuse, empty_object};
use crate::domain::id::{Digest, FilterName, SigningKeyId, SourceName, SubscriptionId};
use crate::domain::pacing::Pacing;
use crate::domain::retry::RetrySchedule;
use crate::domain::secret::Secret;
use crate::domain::subscription::{Format, Pattern, Pause, SigningKey, SigningScheme, Subscription};
use crate::domain::time::Timestamp;
use crate::egress::Certificates;

/// What is asked for: the whole subscription, also when it is replaced.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionInput {
    /// What people call it.
    #[serde(default)]
    #[schemars(length(max = TEXT_CHARS_MAX))]
    pub description: Option<String>,
    /// Where its deliveries go.
    pub endpoint: EndpointInput,
    /// Which event types.
    #[serde(default = "everything")]
    #[schemars(length(min = 1, max = PATTERNS_MAX))]
    pub events: Vec<Pattern>,
    /// Which sources; empty: all.
    #[serde(default)]
    pub sources: Vec<SourceName>,
    /// The filters, in order.
    #[serde(default)]
    #[schemars(length(max = CHAIN_MAX))]
    pub chain: Vec<BindingInput>,
    /// What the body is.
    #[serde(default)]
    pub format: Format,
    /// How it is signed; when replacing, the keys stay unless the scheme changes.
    #[serde(default)]
    pub signing: SigningInput,
    /// When a failed attempt is tried again, in seconds after the one before.
    #[serde(default)]
    pub retry: RetrySchedule,
    /// How fast, in which order and for how long.
    #[serde(default)]
    pub pacing: Pacing,
    /// What its owner wants to find here again.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// An endpoint as it is sent in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointInput {
    /// Its URL.
    pub url: String,
    /// Headers to send besides Setgate's own. When replacing, absent keeps all that are stored, and `null` as a value
    /// keeps that one.
    #[serde(default)]
    #[schemars(extend("maxProperties" = HEADERS_MAX))]
    pub headers: Option<BTreeMap<String, Option<Secret>>>,
    /// What is particular to TLS there. When replacing, absent keeps all that is stored; `{}` is nothing.
    #[serde(default)]
    pub tls: Option<TlsInput>,
}

/// What is particular to TLS at an endpoint, as it is sent in.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsInput {
    /// PEM of what to trust there, and nothing else: authorities, or the receiver's own certificate, which is then good for
    /// a receiver that shows exactly it. Absent: the authorities that the host trusts.
    pub ca_pem: Option<String>,
    /// PEM of the certificate to show, then of those that lead to its authority.
    pub client_certificate_pem: Option<String>,
    /// PEM of its key, without a passphrase. When replacing, absent keeps the one that is stored.
    pub client_key_pem: Option<Secret>,
}

/// An endpoint without the values of its headers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EndpointView {
    /// Its URL.
    pub url: String,
    /// Their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// What is particular to TLS there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsView>,
}

/// What is particular to TLS at an endpoint, without the key.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TlsView {
    /// PEM of the authorities and certificates that alone are trusted there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// SHA-256 of each of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ca_fingerprints: Vec<Digest>,
    /// PEM of the certificate that is shown, then of those that lead to its authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_pem: Option<String>,
    /// SHA-256 of each of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client_certificate_fingerprints: Vec<Digest>,
}

fn everything() -> Vec<Pattern> {
    vec![Pattern::try_from("*".to_owned()).expect("a literal pattern")]
}

/// A binding as it is sent in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BindingInput {
    /// Which filter.
    pub filter: FilterName,
    /// Settings: a JSON object.
    #[serde(default = "empty_object")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub config: Box<RawValue>,
    /// Secrets by name. Absent when replacing: those of the same filter's binding: of the first, where this
    /// is its first, and so on.
    #[serde(default)]
    #[schemars(extend("maxProperties" = SECRETS_MAX))]
    pub secrets: Option<BTreeMap<String, Secret>>,
    /// What it is granted, besides `log`; absent: nothing. It has to cover what the filter imports.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = false))]
    pub grants: Option<BTreeSet<Grant>>,
    /// What happens when it faults.
    #[serde(default)]
    pub on_fault: crate::domain::verdict::FaultPolicy,
    /// Lets one instance of the filter see several events of this binding, one after the other; absent: each event has a
    /// fresh one. Faster for guests with a large runtime, and its deliveries cannot be reproduced.
    #[serde(default)]
    pub reuse: Option<Reuse>,
}

/// How deliveries are to be signed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SigningInput {
    /// Which headers.
    #[serde(default = "standard")]
    pub scheme: SigningScheme,
    /// A secret of the receiver's; absent: one is made.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// For `standard` without a secret: make an ed25519 key (`v1a`) instead of a symmetric one.
    #[serde(default)]
    pub ed25519: bool,
}

fn standard() -> SigningScheme {
    SigningScheme::Standard
}

impl Default for SigningInput {
    fn default() -> Self {
        Self { scheme: standard(), secret: None, ed25519: false }
    }
}

/// What is asked for when a key is rotated.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RotateInput {
    /// A secret of the receiver's; absent: one is made, of the kind of the newest key.
    pub secret: Option<Secret>,
    /// Make an ed25519 key; absent: of the kind of the newest key.
    pub ed25519: Option<bool>,
    /// Hours that the keys so far go on signing beside the new one; 24 where absent.
    #[schemars(range(max = OVERLAP_HOURS_MAX))]
    pub overlap_hours: Option<u32>,
}

/// A subscription as it is shown: without its secrets.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `Subscription`")]
pub struct SubscriptionView {
    pub id: SubscriptionId,
    pub description: Option<String>,
    pub endpoint: EndpointView,
    pub events: Vec<Pattern>,
    pub sources: Vec<SourceName>,
    pub chain: Vec<BindingView>,
    pub format: Format,
    pub signing: SigningView,
    pub retry: RetrySchedule,
    pub pacing: Pacing,
    pub paused: Option<Pause>,
    pub metadata: BTreeMap<String, String>,
    pub verified_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A binding without its secrets.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `Binding`")]
pub struct BindingView {
    pub filter: FilterName,
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub config: Box<RawValue>,
    /// Their names.
    pub secrets: Vec<String>,
    pub grants: BTreeSet<Grant>,
    pub on_fault: crate::domain::verdict::FaultPolicy,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
}

/// A key ring without its secrets.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `Signing`")]
pub struct SigningView {
    pub scheme: SigningScheme,
    pub keys: Vec<SigningKeyView>,
}

/// A signing key without its secret.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `SigningKey`")]
pub struct SigningKeyView {
    pub id: SigningKeyId,
    /// For the receiver, where the key is ed25519.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
    pub created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A subscription with its version and, where a signing key was just made, that key: shown this once.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SubscriptionOnce {
    /// The version, for `If-Match`.
    #[serde(skip)]
    pub version: u64,
    /// What is shown later too.
    #[serde(flatten)]
    pub view: SubscriptionView,
    /// The new signing secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<String>,
}

/// Without its secrets.
pub(super) fn show(subscription: &Subscription) -> SubscriptionView {
    let key = |key: &SigningKey| SigningKeyView {
        id: key.id,
        public: key.public.clone(),
        created_at: key.created_at,
        expires_at: key.expires_at,
    };
    let binding = |binding: &Binding| BindingView {
        filter: binding.filter.clone(),
        config: binding.config.clone(),
        secrets: binding.secrets.keys().cloned().collect(),
        grants: binding.grants.clone(),
        on_fault: binding.on_fault,
        reuse: binding.reuse,
    };
    SubscriptionView {
        id: subscription.id,
        description: subscription.description.clone(),
        endpoint: EndpointView {
            url: subscription.endpoint.url().to_string(),
            headers: subscription.endpoint.headers().keys().chain(subscription.headers.keys()).cloned().collect(),
            tls: show_tls(subscription.endpoint.tls()),
        },
        events: subscription.events.clone(),
        sources: subscription.sources.clone(),
        chain: subscription.chain.iter().map(binding).collect(),
        format: subscription.format,
        signing: SigningView {
            scheme: subscription.signing.scheme,
            keys: subscription.signing.keys.iter().map(key).collect(),
        },
        retry: subscription.retry.clone(),
        pacing: subscription.pacing.clone(),
        paused: subscription.paused.clone(),
        metadata: subscription.metadata.clone(),
        verified_at: subscription.verified_at,
        created_at: subscription.created_at,
        updated_at: subscription.updated_at,
    }
}

fn show_tls(tls: &EndpointTls) -> Option<TlsView> {
    // What is stored was read when it was set.
    let fingerprints =
        |pem: &String| Certificates::read(pem).map(|certificates| certificates.fingerprints()).unwrap_or_default();
    let client = tls.client.as_ref().map(|client| &client.certificate_pem);
    (!tls.is_empty()).then(|| TlsView {
        ca_pem: tls.ca_pem.clone(),
        ca_fingerprints: tls.ca_pem.as_ref().map(fingerprints).unwrap_or_default(),
        client_certificate_pem: client.cloned(),
        client_certificate_fingerprints: client.map(fingerprints).unwrap_or_default(),
    })
}
