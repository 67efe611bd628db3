//! Request and response types of subscriptions.

use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use setgate_dialects::{active_keys, staged_key};
use setgate_domain::endpoint::EndpointTls;
use setgate_domain::filter::{Binding, Grant, Reuse, empty_object};
use setgate_domain::id::{Digest, FilterName, SigningKeyId, SourceName, SubscriptionId, SubscriptionName};
use setgate_domain::pacing::Pacing;
use setgate_domain::retry::RetrySchedule;
use setgate_domain::secret::{REDACTED, Sealed, Secret, SecretInput};
use setgate_domain::subscription::{
    Format, Pattern, Pause, Poll, PollToken, SignedSet, Signing, SigningKey, SigningScheme, Subscription,
};
use setgate_domain::time::Timestamp;
use setgate_egress::Certificates;

use super::{CHAIN_MAX, HEADERS_MAX, OVERLAP_HOURS_MAX, PATTERNS_MAX, SECRETS_MAX};
use crate::control::warnings::Warning;
use crate::control::{TEXT_CHARS_MAX, changed};

/// A request to create or replace a subscription. It contains the complete subscription.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionInput {
    /// Optional. Must match the id of the subscription that is replaced.
    #[serde(default)]
    #[schemars(extend("readOnly" = true))]
    pub id: Option<SubscriptionId>,
    /// A name that can be used in paths instead of the id. On replacement, the stored name is retained if this is
    /// absent, and removed by `null`.
    #[serde(default, deserialize_with = "changed")]
    #[schemars(with = "Option<SubscriptionName>")]
    pub name: Option<Option<SubscriptionName>>,
    /// A description for users.
    #[serde(default)]
    #[schemars(length(max = TEXT_CHARS_MAX))]
    pub description: Option<String>,
    /// The endpoint that receives the deliveries. Required, unless `poll` is given.
    #[serde(default)]
    pub endpoint: Option<EndpointInput>,
    /// Instead of an endpoint, for the format `signed_set`: the receiver polls (RFC 8936). A bearer token for it is
    /// generated and returned once. On replacement, the tokens are retained.
    #[serde(default)]
    pub poll: Option<PollInput>,
    /// Patterns of event types.
    #[serde(default = "everything")]
    #[schemars(length(min = 1, max = PATTERNS_MAX))]
    pub events: Vec<Pattern>,
    /// Sources. Empty selects all sources.
    #[serde(default)]
    pub sources: Vec<SourceName>,
    /// The filters, in order.
    #[serde(default)]
    #[schemars(length(max = CHAIN_MAX))]
    pub chain: Vec<BindingInput>,
    /// The format of the request body.
    #[serde(default)]
    pub format: Format,
    /// Settings of the format `signed_set`. Required for it, and not allowed for another one.
    #[serde(default)]
    pub signed_set: Option<SignedSet>,
    /// The signature in headers. `standard` if absent; none if absent or `null` with the format `signed_set`. On
    /// replacement, the keys are retained unless the scheme changes.
    #[serde(default)]
    pub signing: Option<SigningInput>,
    /// The retry schedule: delays in seconds after each failed attempt.
    #[serde(default)]
    pub retry: RetrySchedule,
    /// Rate, ordering and time limits of deliveries.
    #[serde(default)]
    pub pacing: Pacing,
    /// Arbitrary entries for the user's own purposes.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Read-only; ignored.
    #[serde(default)]
    pub paused: Ignored,
    /// Read-only; ignored.
    #[serde(default)]
    pub verified_at: Ignored,
    /// Read-only; ignored.
    #[serde(default)]
    pub created_at: Ignored,
    /// Read-only; ignored.
    #[serde(default)]
    pub updated_at: Ignored,
    /// Read-only; ignored.
    #[serde(default)]
    pub warnings: Ignored,
}

/// A member that is returned by the API but cannot be set in this request. It is accepted so that a document can be
/// sent back unchanged.
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

/// Poll delivery in a request. It has no settings yet.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PollInput {
    /// Read-only; ignored.
    #[serde(default)]
    pub path: Ignored,
    /// Read-only; ignored.
    #[serde(default)]
    pub tokens: Ignored,
}

/// Poll delivery without the tokens.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PollView {
    /// The path at which the receiver polls, below the host's public URL.
    pub path: String,
    /// The accepted tokens, newest first.
    pub tokens: Vec<PollTokenView>,
}

/// A bearer token of a polling receiver, without its text.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PollTokenView {
    pub created_at: Timestamp,
    /// End of the overlap with its successor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A request to replace the bearer token of a polling receiver.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RotatePollTokenInput {
    /// Hours for which the existing tokens are accepted as well. 24 if absent. With 0 they expire immediately.
    #[schemars(range(max = OVERLAP_HOURS_MAX))]
    pub overlap_hours: Option<u32>,
}

/// An endpoint in a request. On replacement, the URL and the secrets keep their stored value if they are absent or
/// redacted (`***`), and `null` removes a secret.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointInput {
    /// The URL. Its path and query are treated as secrets.
    #[serde(default, deserialize_with = "changed")]
    #[schemars(with = "Option<String>")]
    pub url: Option<Option<String>>,
    /// Headers to send in addition to Setgate's own.
    #[serde(default, deserialize_with = "changed")]
    #[schemars(with = "Option<BTreeMap<String, Option<SecretInput>>>", extend("maxProperties" = HEADERS_MAX))]
    pub headers: Option<Option<BTreeMap<String, Option<SecretInput>>>>,
    /// TLS settings for this endpoint. On replacement, the stored settings are retained if this is absent, and removed
    /// by `null`.
    #[serde(default, deserialize_with = "changed")]
    #[schemars(with = "Option<TlsInput>")]
    pub tls: Option<Option<TlsInput>>,
}

/// TLS settings for an endpoint, in a request.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsInput {
    /// PEM of the only certificates to trust for this endpoint: authorities, or the receiver's own certificate, which
    /// must then match exactly. If absent, the authorities that the host trusts are used.
    pub ca_pem: Option<String>,
    /// PEM of the client certificate, followed by its intermediate certificates.
    pub client_certificate_pem: Option<String>,
    /// PEM of the private key, without a passphrase.
    #[serde(deserialize_with = "changed")]
    #[schemars(with = "Option<SecretInput>")]
    pub client_key_pem: Option<Option<SecretInput>>,
    /// Read-only; ignored.
    pub ca_fingerprints: Ignored,
    /// Read-only; ignored.
    pub client_certificate_fingerprints: Ignored,
}

/// An endpoint without its secrets.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EndpointView {
    /// The URL: scheme, host and port, then `/***` and at most the last four characters of its path and query.
    pub url: String,
    /// `***` for each value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, &'static str>,
    /// TLS settings for this endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsView>,
}

/// TLS settings for an endpoint, without the private key.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TlsView {
    /// PEM of the only certificates that are trusted for this endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// SHA-256 of each of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ca_fingerprints: Vec<Digest>,
    /// PEM of the client certificate, followed by its intermediate certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_pem: Option<String>,
    /// SHA-256 of each of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client_certificate_fingerprints: Vec<Digest>,
    /// `***` if there is a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_pem: Option<&'static str>,
}

fn everything() -> Vec<Pattern> {
    vec![Pattern::try_from("*".to_owned()).expect("a literal pattern")]
}

/// A binding in a request.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BindingInput {
    /// The filter.
    pub filter: FilterName,
    /// Settings for the filter, as a JSON object.
    #[serde(default = "empty_object")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub config: Box<RawValue>,
    /// Secrets by name. On replacement, a secret that is absent or `***` keeps the stored value of the same filter's
    /// binding (the first binding of a filter that of the first stored one, and so on), and `null` removes it.
    #[serde(default, deserialize_with = "changed")]
    #[schemars(with = "Option<BTreeMap<String, Option<SecretInput>>>", extend("maxProperties" = SECRETS_MAX))]
    pub secrets: Option<Option<BTreeMap<String, Option<SecretInput>>>>,
    /// Grants in addition to `log`. None if absent. They must cover everything that the filter imports.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = false))]
    pub grants: Option<BTreeSet<Grant>>,
    /// The policy for faults.
    #[serde(default)]
    pub on_fault: setgate_domain::verdict::FaultPolicy,
    /// Allows one instance of the filter to process several events of this binding, one after the other. If absent,
    /// each event gets a fresh instance. Reuse is faster for guests with a large runtime, but its deliveries cannot be
    /// reproduced.
    #[serde(default)]
    pub reuse: Option<Reuse>,
}

/// The signature settings in a request.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SigningInput {
    /// The signature scheme, which determines the headers.
    #[serde(default = "standard")]
    pub scheme: SigningScheme,
    /// A secret chosen by the receiver. If absent, one is generated. On replacement, the keys are retained if this is
    /// absent or `***`.
    #[serde(default)]
    pub secret: Option<SecretInput>,
    /// For `standard` without a secret: generate an ed25519 key (`v1a`) instead of a symmetric one.
    #[serde(default)]
    pub ed25519: Option<bool>,
    /// For an ed25519 key: also sign with `v1`, using a separate secret that is returned once. Defaults to true.
    #[serde(default)]
    pub with_v1: Option<bool>,
    /// Read-only; ignored.
    #[serde(default)]
    pub current: Ignored,
    /// Read-only; ignored.
    #[serde(default)]
    pub next: Ignored,
    /// Read-only; ignored.
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

/// A request to rotate the signing key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RotateInput {
    /// A secret chosen by the receiver. If absent, one is generated, of the same kind as the newest key.
    pub secret: Option<Secret>,
    /// Generate an ed25519 key. If absent, the kind of the newest key is used.
    pub ed25519: Option<bool>,
    /// For an ed25519 key: also sign with `v1`. If absent, the setting of the newest key is used, or true if the newest
    /// key is of another kind.
    pub with_v1: Option<bool>,
    /// Hours for which the existing keys keep signing: beside the new one, or instead of it if the scheme carries a
    /// single signature. 24 if absent. With 0 they expire immediately.
    #[schemars(range(max = OVERLAP_HOURS_MAX))]
    pub overlap_hours: Option<u32>,
}

/// A subscription as returned by the API, without its secrets.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `Subscription`")]
pub struct SubscriptionView {
    pub id: SubscriptionId,
    pub name: Option<SubscriptionName>,
    pub description: Option<String>,
    /// `null` if the receiver polls.
    pub endpoint: Option<EndpointView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll: Option<PollView>,
    pub events: Vec<Pattern>,
    pub sources: Vec<SourceName>,
    pub chain: Vec<BindingView>,
    pub format: Format,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_set: Option<SignedSet>,
    /// `null` if only the body is signed.
    pub signing: Option<SigningView>,
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
    /// `***` for each value.
    pub secrets: BTreeMap<String, &'static str>,
    pub grants: BTreeSet<Grant>,
    pub on_fault: setgate_domain::verdict::FaultPolicy,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
}

/// The signing keys of a subscription, without their secrets.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SigningView {
    /// The signature scheme, which determines the headers.
    pub scheme: SigningScheme,
    /// Whether the newest key is an ed25519 key.
    pub ed25519: bool,
    /// For an ed25519 key: whether `v1` is signed as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_v1: Option<bool>,
    /// The key that signs alone or first.
    pub current: Option<SigningKeyId>,
    /// The staged key. It signs from `activates_at`, or from its activation if that is earlier.
    pub next: Option<SigningKeyId>,
    /// All keys, newest first.
    pub keys: Vec<SigningKeyView>,
}

/// A signing key without its secret.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `SigningKey`")]
pub struct SigningKeyView {
    pub id: SigningKeyId,
    /// The public key for the receiver, if this is an ed25519 key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
    pub created_at: Timestamp,
    /// The time from which a staged key signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activates_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A subscription with its version. If a signing key was just created, it also contains the receiver's secret or public
/// key, which is not returned again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SubscriptionOnce {
    /// The version, for `If-Match`.
    #[serde(skip)]
    pub version: u64,
    /// The subscription.
    #[serde(flatten)]
    pub view: SubscriptionView,
    /// Settings that have no effect. Absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// The new symmetric secret. For an ed25519 key, the secret that signs `v1` beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<String>,
    /// The public half of the new ed25519 key. The private half is never returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_public_key: Option<String>,
    /// The new bearer token of a polling receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll_token: Option<String>,
}

/// The parts of a new key that are returned once. The private half of an ed25519 key is never returned.
#[derive(Debug, Default)]
pub(super) struct RevealedKey {
    /// The symmetric secret, if the host generated one.
    pub(super) secret: Option<String>,
    /// `whpk_...`, if this is an ed25519 key.
    pub(super) public: Option<String>,
    /// The new bearer token of a polling receiver.
    pub(super) poll_token: Option<String>,
}

/// The view of a subscription, without its secrets.
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
        endpoint: subscription.endpoint.as_ref().map(|endpoint| EndpointView {
            url: endpoint.redacted_url().to_owned(),
            headers: redacted(&subscription.headers),
            tls: show_tls(endpoint.tls()),
        }),
        poll: subscription.poll.as_ref().map(|poll| show_poll(subscription, poll)),
        events: subscription.events.clone(),
        sources: subscription.sources.clone(),
        chain: subscription.chain.iter().map(binding).collect(),
        format: subscription.format,
        signed_set: subscription.signed_set.clone(),
        signing: subscription.signing.as_ref().map(|signing| show_signing(signing, now)),
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

fn show_poll(subscription: &Subscription, poll: &Poll) -> PollView {
    let token = |token: &PollToken| PollTokenView { created_at: token.created_at, expires_at: token.expires_at };
    PollView {
        path: format!("/t/{}/poll/{}", subscription.tenant, subscription.id),
        tokens: poll.tokens.iter().map(token).collect(),
    }
}

fn show_tls(tls: &EndpointTls) -> Option<TlsView> {
    // The stored PEM was validated when it was set, so it can be parsed.
    let fingerprints =
        |pem: &String| Certificates::parse(pem).map(|certificates| certificates.fingerprints()).unwrap_or_default();
    let client = tls.client.as_ref().map(|client| &client.certificate_pem);
    (!tls.is_empty()).then(|| TlsView {
        ca_pem: tls.ca_pem.clone(),
        ca_fingerprints: tls.ca_pem.as_ref().map(fingerprints).unwrap_or_default(),
        client_certificate_pem: client.cloned(),
        client_certificate_fingerprints: client.map(fingerprints).unwrap_or_default(),
        client_key_pem: client.map(|_| REDACTED),
    })
}

/// The names with `***` as each value.
fn redacted(secrets: &BTreeMap<String, Sealed>) -> BTreeMap<String, &'static str> {
    secrets.keys().map(|name| (name.clone(), REDACTED)).collect()
}
