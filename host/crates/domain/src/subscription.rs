//! Subscriptions: which events are delivered to which endpoint, with which filters and signature.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use super::endpoint::Endpoint;
use super::filter::Binding;
use super::id::{Digest, SigningKeyId, SourceName, SubscriptionId, SubscriptionName, TenantId};
use super::pacing::Pacing;
use super::retry::RetrySchedule;
use super::secret::Sealed;
use super::time::Timestamp;

pub use super::pattern::{PATTERN_CHARS_MAX, PATTERN_STARS_MAX, Pattern, glob};

/// A subscription of a tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subscription {
    /// ID of the subscription.
    pub id: SubscriptionId,
    /// The tenant.
    pub tenant: TenantId,
    /// Name chosen by the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SubscriptionName>,
    /// Description for people.
    #[serde(default)]
    pub description: Option<String>,
    /// Destination of the deliveries. `None` exactly if the receiver polls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Credentials of the receiver if it polls (RFC 8936).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<Poll>,
    /// Additional request headers for the receiver, encrypted, by lower-case name.
    #[serde(default)]
    pub headers: BTreeMap<String, Sealed>,
    /// Event type patterns. An event matches if one of its types matches one of these.
    pub events: Vec<Pattern>,
    /// Sources of events. All sources of the tenant if empty.
    #[serde(default)]
    pub sources: Vec<SourceName>,
    /// The filter chain, in order.
    #[serde(default)]
    pub chain: Vec<Binding>,
    /// Format of the body.
    #[serde(default)]
    pub format: Format,
    /// Settings of the format [`Format::SignedSet`], which requires them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_set: Option<SignedSet>,
    /// Signature of deliveries in headers. `None` only for the format [`Format::SignedSet`], whose body is signed.
    #[serde(default)]
    pub signing: Option<Signing>,
    /// Retry schedule.
    #[serde(default)]
    pub retry: RetrySchedule,
    /// Rate, order and timeout.
    #[serde(default)]
    pub pacing: Pacing,
    /// Set while the subscription is paused: nothing is sent, and pending deliveries stay pending.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// Data for the tenant's own use. Stored and shown, but not interpreted.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// When the endpoint last passed verification at its current origin and path. `None` if it has not.
    #[serde(default)]
    pub verified_at: Option<Timestamp>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

/// Maximum number of metadata entries.
pub const METADATA_ENTRIES_MAX: usize = 32;
/// Maximum length of a metadata key in characters.
pub const METADATA_KEY_CHARS_MAX: usize = 64;
/// Maximum length of a metadata value in characters.
pub const METADATA_VALUE_CHARS_MAX: usize = 500;

/// Reason of the pause of a subscription whose endpoint is not verified yet.
pub const NOT_VERIFIED: &str = "not verified";

/// A pause of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pause {
    /// Cause of the pause.
    #[serde(default)]
    pub cause: PauseCause,
    /// Description of the reason.
    pub reason: String,
    /// Start of the pause.
    pub since: Timestamp,
}

/// Cause of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PauseCause {
    /// An API request.
    #[default]
    Request,
    /// The receiver responded with 410 Gone.
    Gone,
    /// No delivery succeeded for as long as the subscription allows.
    Failing,
    /// The receiver requested it (`webhook-delivery: disable`).
    Receiver,
    /// The receiver refused the credential of a signed SET repeatedly.
    Credential,
    /// The endpoint has to be verified first.
    Unverified,
}

impl PauseCause {
    /// Name in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Gone => "gone",
            Self::Failing => "failing",
            Self::Receiver => "receiver",
            Self::Credential => "credential",
            Self::Unverified => "unverified",
        }
    }
}

/// Body of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "DeliveryFormat")]
pub enum Format {
    /// The SET as JSON.
    #[default]
    Set,
    /// The product's original format, after the filters: the value of the event's member, or for WSO2 the SET with
    /// `iat` in milliseconds.
    Original,
    /// A signed SET (RFC 8417) of the tenant, pushed as specified in RFC 8935.
    SignedSet,
}

/// Settings of signed SETs. They have the issuer of the tenant and are signed with its issuer keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedSet {
    /// `aud`: the identifiers by which the receiver recognises that a SET is intended for it.
    #[schemars(length(min = 1, max = AUDIENCE_MAX), inner(length(min = 1, max = AUDIENCE_CHARS_MAX)))]
    pub audience: Vec<String>,
    /// The signature algorithm. Every receiver accepts `RS256`, the default.
    #[serde(default)]
    pub algorithm: Algorithm,
}

/// Limit for the values of `aud` in a SET.
pub const AUDIENCE_MAX: usize = 8;
/// Limit for one of them, in characters.
pub const AUDIENCE_CHARS_MAX: usize = 500;

impl SignedSet {
    /// Checks the audience.
    ///
    /// # Errors
    /// The violated rule.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=AUDIENCE_MAX).contains(&self.audience.len()) {
            return Err(format!("give 1 to {AUDIENCE_MAX} values"));
        }
        for (index, value) in self.audience.iter().enumerate() {
            let chars = value.chars().count();
            if !(1..=AUDIENCE_CHARS_MAX).contains(&chars) || value.chars().any(char::is_control) {
                return Err(format!(
                    "value {} has {chars} characters: each has 1 to {AUDIENCE_CHARS_MAX}, without control characters",
                    index + 1
                ));
            }
            if self.audience[..index].contains(value) {
                return Err(format!("value {} is given twice", index + 1));
            }
        }
        Ok(())
    }
}

/// Poll delivery (RFC 8936): the receiver fetches its SETs. Its format is [`Format::SignedSet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// Accepted bearer tokens, newest first.
    pub tokens: Vec<PollToken>,
}

/// A bearer token of a polling receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollToken {
    /// SHA-256 of the token.
    pub digest: Digest,
    /// Time of creation.
    pub created_at: Timestamp,
    /// End of the overlap with its successor. `None` for the newest token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl PollToken {
    /// Prefix of the tokens that Setgate generates.
    pub const PREFIX: &str = "sgp_";

    /// Whether it is accepted at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }
}

/// Signature settings of a subscription.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Signing {
    /// Signature scheme.
    pub scheme: SigningScheme,
    /// The key ring, newest first. The newest key that is not staged is the current key. Older keys sign in addition
    /// until they expire, if the scheme supports several signatures.
    pub keys: Vec<SigningKey>,
}

/// Signature scheme, which determines the headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SigningScheme {
    Standard,
    Hub,
    Wso2,
    Logto,
}

impl SigningScheme {
    /// Name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Hub => "hub",
            Self::Wso2 => "wso2",
            Self::Logto => "logto",
        }
    }
}

/// A key of a key ring.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SigningKey {
    /// ID of the key.
    pub id: SigningKeyId,
    /// The encrypted secret in the encoding of its scheme: `whsec_...`, `whsk_...`, or any text for the others.
    pub secret: Sealed,
    /// The public key `whpk_...` of an ed25519 key.
    #[serde(default)]
    pub public: Option<String>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// When it starts to sign. `None` if it signs since its creation or was activated since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activates_at: Option<Timestamp>,
    /// When it stops signing. `None` if it signs until it is replaced.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// For an ed25519 key: the encrypted secret `whsec_...` for an additional `v1` signature. `None` if only `v1a` is
    /// signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v1: Option<Sealed>,
}

impl SigningKey {
    /// Whether it is staged at `now`: it does not sign yet.
    pub fn is_staged(&self, now: Timestamp) -> bool {
        self.activates_at.is_some_and(|at| now < at)
    }

    /// Whether it may sign at `now`, according to its activation and expiry.
    pub fn is_active(&self, now: Timestamp) -> bool {
        !self.is_staged(now) && self.expires_at.is_none_or(|at| now < at)
    }
}
