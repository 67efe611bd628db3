//! Subscriptions: who gets which events, through which filters, signed how.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use super::filter::Binding;
use super::id::{SigningKeyId, SourceName, SubscriptionId, SubscriptionName, TenantId};
use super::pacing::Pacing;
use super::retry::RetrySchedule;
use super::secret::Sealed;
use super::time::Timestamp;

pub use super::pattern::{PATTERN_CHARS_MAX, PATTERN_STARS_MAX, Pattern, glob};

/// A subscription of a tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// Whose.
    pub tenant: TenantId,
    /// The name that its tenant has chosen for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SubscriptionName>,
    /// What people call it.
    #[serde(default)]
    pub description: Option<String>,
    /// Where its deliveries go.
    pub endpoint: Endpoint,
    /// The values of the headers that its receiver wants, by name in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, Sealed>,
    /// Which event types; an event matches where one of its types matches one of these.
    pub events: Vec<Pattern>,
    /// Which sources; empty: all of the tenant's.
    #[serde(default)]
    pub sources: Vec<SourceName>,
    /// The filters, in order.
    #[serde(default)]
    pub chain: Vec<Binding>,
    /// What the body is.
    #[serde(default)]
    pub format: Format,
    /// How deliveries are signed.
    pub signing: Signing,
    /// When a failed attempt is tried again.
    #[serde(default)]
    pub retry: RetrySchedule,
    /// How fast, in which order and for how long.
    #[serde(default)]
    pub pacing: Pacing,
    /// Why and since when nothing is sent; none: it runs. What is pending stays pending.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// What its owner wants to find here again: kept and shown, nothing else.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// When the endpoint last answered a challenge rightly, at the origin and path that it has now; none: not yet.
    #[serde(default)]
    pub verified_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Entries of a subscription's metadata at the most.
pub const METADATA_ENTRIES_MAX: usize = 32;
/// Characters of a key of it at the most.
pub const METADATA_KEY_CHARS_MAX: usize = 64;
/// Characters of a value of it at the most.
pub const METADATA_VALUE_CHARS_MAX: usize = 500;

/// Why a subscription is paused whose endpoint has to be verified first.
pub const NOT_VERIFIED: &str = "not verified";

/// Why a subscription sends nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pause {
    /// Who or what paused it.
    #[serde(default)]
    pub cause: Cause,
    /// In words.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// Who or what paused a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "PauseCause")]
pub enum Cause {
    /// A person.
    #[default]
    Request,
    /// The receiver answered 410 Gone.
    Gone,
    /// Nothing has succeeded for as long as the subscription allows.
    Failing,
    /// The receiver asked for it (`webhook-delivery: disable`).
    Receiver,
    /// Its endpoint has to be verified first.
    Unverified,
}

impl Cause {
    /// The word in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Gone => "gone",
            Self::Failing => "failing",
            Self::Receiver => "receiver",
            Self::Unverified => "unverified",
        }
    }
}

/// What a delivery's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "DeliveryFormat")]
pub enum Format {
    /// The SET as JSON.
    #[default]
    Set,
    /// What the product itself would have sent, after filters: the value of the event's member, or for WSO2 the SET
    /// with `iat` in milliseconds.
    Original,
}

/// How deliveries of a subscription are signed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Signing {
    /// Which headers.
    pub scheme: SigningScheme,
    /// The key ring, newest first. The newest that is not staged is the current key. Older ones sign beside it until they expire,
    /// if the scheme can carry several signatures.
    pub keys: Vec<SigningKey>,
}

/// Which headers carry the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SigningScheme {
    /// Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature` with `v1` for symmetric and
    /// `v1a` for ed25519 keys.
    Standard,
    /// `X-Hub-Signature: sha256=<hex>` (WebSub).
    Hub,
    /// `x-wso2-event-signature: sha256=<hex>`.
    Wso2,
    /// `logto-signature-sha-256: <hex>`.
    Logto,
}

impl SigningScheme {
    /// Whether its headers carry several signatures, so that two keys can sign beside each other.
    pub fn carries_several(self) -> bool {
        match self {
            Self::Standard => true,
            Self::Hub | Self::Wso2 | Self::Logto => false,
        }
    }

    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Hub => "hub",
            Self::Wso2 => "wso2",
            Self::Logto => "logto",
        }
    }
}

/// One key of a key ring.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SigningKey {
    /// Its id.
    pub id: SigningKeyId,
    /// The secret as its scheme writes it, encrypted: `whsec_...`, `whsk_...`, or any text for the others.
    pub secret: Sealed,
    /// `whpk_...` where the key is ed25519.
    #[serde(default)]
    pub public: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when it signs. None: from its creation, or it was activated since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activates_at: Option<Timestamp>,
    /// Until when it signs; none: until it is replaced.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// If the key is ed25519: the `whsec_...` secret that signs `v1` beside its `v1a`, encrypted; none: it signs `v1a` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v1: Option<Sealed>,
}

impl SigningKey {
    /// Whether it is staged at `now`: it will sign, and does not yet.
    pub fn is_staged(&self, now: Timestamp) -> bool {
        self.activates_at.is_some_and(|at| now < at)
    }

    /// Whether it signs at `now`, as far as its own times say.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        !self.is_staged(now) && self.expires_at.is_none_or(|at| now < at)
    }
}
