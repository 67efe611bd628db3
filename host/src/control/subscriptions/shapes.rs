//! What a subscription looks like when it is sent in, and when it is shown.

use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{CHAIN_MAX, HEADERS_MAX, OVERLAP_HOURS_MAX, PATTERNS_MAX, SECRETS_MAX};
use crate::control::warnings::Warning;
use crate::control::{TEXT_CHARS_MAX, changed};
use crate::domain::endpoint::EndpointTls;
use crate::domain::filter::{Binding, Grant, Reuse, empty_object};
use crate::domain::id::{Digest, FilterName, SigningKeyId, SourceName, SubscriptionId, SubscriptionName};
use crate::domain::pacing::Pacing;
use crate::domain::retry::RetrySchedule;
use crate::domain::secret::{REDACTED, Sealed, Secret, SecretInput};
use crate::domain::subscription::{Format, Pattern, Pause, Signing, SigningKey, SigningScheme, Subscription};
use crate::domain::time::Timestamp;
use crate::egress::Certificates;
use crate::signing::{active_keys, staged_key};

/// What is asked for: the whole subscription, also when it is replaced.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionInput {
    /// As it is shown; has to be the id of the subscription that is replaced.
    #[serde(default)]
    #[schemars(extend("readOnly" = true))]
    pub id: Option<SubscriptionId>,
    /// A name that its tenant chooses, by which paths can name it too. When replacing, absent keeps it and `null` removes it.
    #[serde(default, deserialize_with = "changed")]
    #[schemars(with = "Option<SubscriptionName>")]
    pub name: Option<Option<SubscriptionName>>,
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
    /// As it is shown; ignored.
    #[serde(default)]
    pub paused: Ignored,
    /// As it is shown; ignored.
    #[serde(default)]
    pub verified_at: Ignored,
    /// As it is shown; ignored.
    #[serde(default)]
    pub created_at: Ignored,
    /// As it is shown; ignored.
    #[serde(default)]
    pub updated_at: Ignored,
    /// As it is shown; ignored.
    #[serde(default)]
    pub warnings: Ignored,
}

/// A member that is shown and cannot be set this way. It is accepted so that a document can be sent back as it was read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl JsonSchema for Ignored {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ignored".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"readOnly": true})
    }
}

/// An endpoint as it is sent in. When replacing, secrets and the URL keep their stored value if they are absent or as they are
/// shown (`***`), and `null` removes a secret.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointInput {
    /// Its URL. Its path and query are secrets.
    #[serde(default, deserialize_with = "changed")]
    #[schemars(with = "Option<String>")]
    pub url: Option<Option<String>>,
    /// Headers to send besides Setgate's own.
    #[serde(default, deserialize_with = "changed")]
    #[schemars(with = "Option<BTreeMap<String, Option<SecretInput>>>", extend("maxProperties" = HEADERS_MAX))]
    pub headers: Option<Option<BTreeMap<String, Option<SecretInput>>>>,
    /// What is particular to TLS there. When replacing, absent keeps all that is stored; `null` is nothing.
    #[serde(default, deserialize_with = "changed")]
    #[schemars(with = "Option<TlsInput>")]
    pub tls: Option<Option<TlsInput>>,
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
    /// PEM of its key, without a passphrase.
    #[serde(deserialize_with = "changed")]
    #[schemars(with = "Option<SecretInput>")]
    pub client_key_pem: Option<Option<SecretInput>>,
    /// As it is shown; ignored.
    pub ca_fingerprints: Ignored,
    /// As it is shown; ignored.
    pub client_certificate_fingerprints: Ignored,
}

/// An endpoint without its secrets.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EndpointView {
    /// Its URL: scheme, host, port, and after `/***` the last characters of its path and query, four at the most.
    pub url: String,
    /// `***` for the value of each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, &'static str>,
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
    /// `***` if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_pem: Option<&'static str>,
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
    /// Secrets by name. When replacing, one that is absent or `***` keeps the value that the same filter's binding has stored (the
    /// first binding of a filter that of the first, and so on), and `null` removes it.
    #[serde(default, deserialize_with = "changed")]
    #[schemars(with = "Option<BTreeMap<String, Option<SecretInput>>>", extend("maxProperties" = SECRETS_MAX))]
    pub secrets: Option<Option<BTreeMap<String, Option<SecretInput>>>>,
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
    /// A secret of the receiver's; absent: one is made. When replacing, absent or `***` keeps the keys.
    #[serde(default)]
    pub secret: Option<SecretInput>,
    /// For `standard` without a secret: make an ed25519 key (`v1a`) instead of a symmetric one.
    #[serde(default)]
    pub ed25519: Option<bool>,
    /// For an ed25519 key: sign `v1` beside `v1a`, under a secret of its own that is shown once. True unless it is switched off.
    #[serde(default)]
    pub with_v1: Option<bool>,
    /// As it is shown; ignored.
    #[serde(default)]
    pub current: Ignored,
    /// As it is shown; ignored.
    #[serde(default)]
    pub next: Ignored,
    /// As it is shown; ignored.
    #[serde(default)]
    pub keys: Ignored,
}

fn standard() -> SigningScheme {
    SigningScheme::Standard
}

impl Default for SigningInput {
    fn default() -> Self {
        Self {
            scheme: standard(),
            secret: None,
            ed25519: None,
            with_v1: None,
            current: Ignored,
            next: Ignored,
            keys: Ignored,
        }
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
    /// For an ed25519 key: sign `v1` beside `v1a`. Absent: if the newest key does; true if that is of another kind.
    pub with_v1: Option<bool>,
    /// Hours that the keys so far go on signing: beside the new one, or in its place if the scheme carries a single signature. 24
    /// if absent; 0 ends them at once.
    #[schemars(range(max = OVERLAP_HOURS_MAX))]
    pub overlap_hours: Option<u32>,
}

/// A subscription as it is shown: without its secrets.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `Subscription`")]
pub struct SubscriptionView {
    pub id: SubscriptionId,
    pub name: Option<SubscriptionName>,
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
    /// `***` for the value of each.
    pub secrets: BTreeMap<String, &'static str>,
    pub grants: BTreeSet<Grant>,
    pub on_fault: crate::domain::verdict::FaultPolicy,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
}

/// A key ring without its secrets.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SigningView {
    /// Which headers.
    pub scheme: SigningScheme,
    /// Whether the newest key is ed25519.
    pub ed25519: bool,
    /// If it is: whether `v1` is signed beside `v1a`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_v1: Option<bool>,
    /// The key that signs, alone or first.
    pub current: Option<SigningKeyId>,
    /// The key that is staged: it signs from `activates_at`, or once it is activated.
    pub next: Option<SigningKeyId>,
    /// All keys, newest first.
    pub keys: Vec<SigningKeyView>,
}

/// A signing key without its secret.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `SigningKey`")]
pub struct SigningKeyView {
    pub id: SigningKeyId,
    /// For the receiver, if the key is ed25519.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
    pub created_at: Timestamp,
    /// From when it signs, if it is staged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activates_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A subscription with its version and, if a signing key was just made, what its receiver needs of it: shown this once.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SubscriptionOnce {
    /// The version, for `If-Match`.
    #[serde(skip)]
    pub version: u64,
    /// What is shown later too.
    #[serde(flatten)]
    pub view: SubscriptionView,
    /// What of it cannot have the effect that it asks for; absent: nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// The new symmetric secret; for an ed25519 key the one that signs `v1` beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<String>,
    /// The public half of the new ed25519 key. The private one is never shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_public_key: Option<String>,
}

/// Without its secrets.
pub(super) fn show(subscription: &Subscription, now: Timestamp) -> SubscriptionView {
    let binding = |binding: &Binding| BindingView {
        filter: binding.filter.clone(),
        config: binding.config.clone(),
        secrets: redacted(&binding.secrets),
        grants: binding.grants.clone(),
        on_fault: binding.on_fault,
        reuse: binding.reuse,
    };
    SubscriptionView {
        id: subscription.id,
        name: subscription.name.clone(),
        description: subscription.description.clone(),
        endpoint: EndpointView {
            url: subscription.endpoint.shown().to_owned(),
            headers: redacted(&subscription.headers),
            tls: show_tls(subscription.endpoint.tls()),
        },
        events: subscription.events.clone(),
        sources: subscription.sources.clone(),
        chain: subscription.chain.iter().map(binding).collect(),
        format: subscription.format,
        signing: show_signing(&subscription.signing, now),
        retry: subscription.retry.clone(),
        pacing: subscription.pacing.clone(),
        paused: subscription.paused.clone(),
        metadata: subscription.metadata.clone(),
        verified_at: subscription.verified_at,
        created_at: subscription.created_at,
        updated_at: subscription.updated_at,
    }
}

fn show_signing(signing: &Signing, now: Timestamp) -> SigningView {
    let key = |key: &SigningKey| SigningKeyView {
        id: key.id,
        public: key.public.clone(),
        created_at: key.created_at,
        activates_at: key.activates_at.filter(|_| key.is_staged(now)),
        expires_at: key.expires_at,
    };
    let ed25519 = signing.keys.first().filter(|key| key.public.is_some());
    SigningView {
        scheme: signing.scheme,
        ed25519: ed25519.is_some(),
        with_v1: ed25519.map(|key| key.v1.is_some()),
        current: active_keys(signing, now).first().map(|key| key.id),
        next: staged_key(signing, now).map(|key| key.id),
        keys: signing.keys.iter().map(key).collect(),
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
        client_key_pem: client.map(|_| REDACTED),
    })
}

/// Names, with what stands for each value.
fn redacted(secrets: &BTreeMap<String, Sealed>) -> BTreeMap<String, &'static str> {
    secrets.keys().map(|name| (name.clone(), REDACTED)).collect()
}
