//! Sources: where a tenant's events come from, which form they have and how they prove themselves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{Digest, SourceName, TenantId};
use super::secret::Sealed;
use super::time::Timestamp;

/// A source of a tenant. Its form and its proof are configured apart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Source {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: SourceName,
    /// How its bodies look.
    pub form: Form,
    /// Ways it may prove itself; one of them has to hold. Never empty: an unproven source says [`Proof::Open`].
    pub proofs: Vec<Proof>,
    /// `iss` for forms that carry none; `https://schemas.setgate.dev/sources/{tenant}/{source}` where absent.
    #[serde(default)]
    pub issuer: Option<String>,
    /// Issuers taken from forms that carry one; empty: any.
    #[serde(default)]
    pub issuers_allowed: Vec<String>,
    /// Topics whose WebSub verification is answered; empty: none is. `*` stands for any run of characters.
    #[serde(default)]
    pub websub_topics: Vec<String>,
    /// How far a signed timestamp may lie from now, either way, in seconds.
    #[serde(default = "timestamp_tolerance_s_default")]
    pub timestamp_tolerance_s: u32,
    /// Whether a signature by sha1 alone is taken.
    #[serde(default)]
    pub allow_sha1: bool,
    /// Whether events may have names that are no URIs; they get URIs of ours.
    #[serde(default)]
    pub allow_plain_event_names: bool,
    /// Whether half a surrogate pair in a body becomes U+FFFD instead of being refused.
    #[serde(default)]
    pub replace_lone_surrogates: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What all official libraries of Standard Webhooks take, in seconds.
pub const TIMESTAMP_TOLERANCE_S_DEFAULT: u32 = 300;
/// The most that a source may allow, in seconds: for so long a captured request can be sent again.
pub const TIMESTAMP_TOLERANCE_S_MAX: u32 = 86_400;

fn timestamp_tolerance_s_default() -> u32 {
    TIMESTAMP_TOLERANCE_S_DEFAULT
}

impl SourceName {
    /// The source of Setgate's own events. No tenant can make a source of this name or send to it, and its events
    /// reach only what they were made for, and subscriptions that name it in `sources`.
    pub fn setgate() -> Self {
        SETGATE.parse().expect("a literal name")
    }

    /// Whether it is the one of Setgate's own events.
    pub fn is_setgate(&self) -> bool {
        self.as_str() == SETGATE
    }
}

const SETGATE: &str = "setgate";

/// How a source's bodies look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "SourceForm")]
pub enum Form {
    /// WSO2 Identity Server and Asgardeo: a JSON SET with `iat` in milliseconds and `rci`.
    Wso2,
    /// Logto hooks: `{event, createdAt, ...}`.
    Logto,
    /// `{type, timestamp, data, organization}`.
    Platform,
    /// A SET as plain JSON (RFC 8417), CAEP, RISC and SSF events among them.
    Set,
}

/// One way a source may prove that a request is its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Proof {
    /// A MAC over the raw body under a shared secret.
    Hmac {
        /// Which header, in which writing.
        header: MacHeader,
        /// The shared secrets, encrypted; several while one is replaced by the next.
        secrets: Vec<Sealed>,
        /// How they are written; absent in sources that were stored before this could be said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        encoding: Option<KeyEncoding>,
    },
    /// `Authorization: Bearer <token>`, kept as SHA-256.
    Bearer {
        /// Digests of the tokens that are taken.
        tokens: Vec<Digest>,
    },
    /// `Authorization: Bearer sgk_...` with a key of the tenant that has the scope `ingest`.
    Key,
    /// Nothing is asked. Has to be chosen explicitly.
    Open,
}

/// How the text of a shared secret stands for the bytes of the key. What follows `whsec_` is base64 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyEncoding {
    /// The text's own bytes, in UTF-8.
    Text,
    /// The bytes that the text is base64 of (RFC 4648 section 4), with or without padding.
    Base64,
}

/// Where a MAC stands and how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MacHeader {
    /// `x-wso2-event-signature: sha256=<hex>`.
    Wso2,
    /// `X-Hub-Signature: <sha256|sha384|sha512>=<hex>` (WebSub section 8) or GitHub's `X-Hub-Signature-256`; the strongest
    /// that is there decides. sha1 alone is refused unless the source has `allow_sha1`.
    Hub,
    /// `logto-signature-sha-256: <hex>`.
    Logto,
    /// Standard Webhooks `webhook-signature: v1,<base64>` with `webhook-id` and `webhook-timestamp`, or the same three as
    /// `svix-*`; the timestamp within the source's `timestamp_tolerance_s`.
    Standard,
}
