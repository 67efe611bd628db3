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
    /// When it was made.
    pub created_at: Timestamp,
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

/// Where a MAC stands and how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MacHeader {
    /// `x-wso2-event-signature: sha256=<hex>`.
    Wso2,
    /// `X-Hub-Signature: <sha256|sha384|sha512>=<hex>` (WebSub section 8; sha1 is refused).
    Hub,
    /// `logto-signature-sha-256: <hex>`.
    Logto,
    /// Standard Webhooks `webhook-signature: v1,<base64>` with id and timestamp, tolerance 5 minutes.
    Standard,
}
