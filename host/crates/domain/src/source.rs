//! Sources: the origin of a tenant's events, with their format and their authentication.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use super::id::{Digest, SourceName, TenantId};
use super::secret::Sealed;
use super::time::Timestamp;

/// A source of a tenant. Format and authentication are configured independently.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Source {
    /// The tenant.
    pub tenant: TenantId,
    /// Name of the source.
    pub name: SourceName,
    /// Format of the request bodies.
    pub form: Form,
    /// Accepted ways of authentication, one of which must succeed. Never empty: a source without authentication has
    /// [`Proof::Open`].
    pub proofs: Vec<Proof>,
    /// `iss` for formats without an issuer. `https://schemas.setgate.dev/sources/{tenant}/{source}` if absent.
    #[serde(default)]
    pub issuer: Option<String>,
    /// Allowed issuers for formats with an issuer. Any issuer is allowed if empty.
    #[serde(default)]
    pub issuers_allowed: Vec<String>,
    /// Topics for which WebSub verification requests are confirmed; none if empty. `*` matches any run of characters.
    #[serde(default)]
    pub websub_topics: Vec<String>,
    /// Maximum difference between a signed timestamp and the current time, in either direction, in seconds.
    #[serde(default = "timestamp_tolerance_s_default")]
    pub timestamp_tolerance_s: u32,
    /// Whether a signature with SHA-1 only is accepted.
    #[serde(default)]
    pub allow_sha1: bool,
    /// Whether event names that are not URIs are accepted. They are mapped to URIs of Setgate.
    #[serde(default)]
    pub allow_plain_event_names: bool,
    /// Whether unpaired surrogates in a body are replaced with U+FFFD. Otherwise the body is rejected.
    #[serde(default)]
    pub replace_lone_surrogates: bool,
    /// Accepted deviations from the standards of signed SETs.
    #[serde(default, skip_serializing_if = "Compat::is_strict")]
    pub compat: Compat,
    /// Time of creation.
    pub created_at: Timestamp,
}

/// Default tolerance, in seconds: the value used by all official Standard Webhooks libraries.
pub const TIMESTAMP_TOLERANCE_S_DEFAULT: u32 = 300;
/// Maximum tolerance, in seconds. A captured request can be replayed within this time.
pub const TIMESTAMP_TOLERANCE_S_MAX: u32 = 86_400;

fn timestamp_tolerance_s_default() -> u32 {
    TIMESTAMP_TOLERANCE_S_DEFAULT
}

impl Source {
    /// The requirements for signed SETs. `None` if the source does not accept any.
    pub fn signed(&self) -> Option<&JwsProof> {
        match (self.form, self.proofs.as_slice()) {
            (Form::Set, [Proof::Jws(proof)]) => Some(proof),
            _ => None,
        }
    }
}

impl SourceName {
    /// The source of Setgate's own events. Tenants cannot create a source of this name or send to it. Its events are
    /// delivered only to their intended subscription and to subscriptions that list it in `sources`.
    pub fn setgate() -> Self {
        SETGATE.parse().expect("a literal name")
    }

    /// Whether this is the source of Setgate's own events.
    pub fn is_setgate(&self) -> bool {
        self.as_str() == SETGATE
    }
}

const SETGATE: &str = "setgate";

/// Format of the request bodies of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "SourceForm")]
pub enum Form {
    Wso2,
    Logto,
    Platform,
    Set,
}

/// A way to authenticate requests of a source.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Proof {
    /// A MAC over the raw body under a shared secret.
    Hmac {
        /// Header and format of the MAC.
        header: MacHeader,
        /// Encrypted shared secrets. Several during a rotation.
        secrets: Vec<Sealed>,
        /// Encoding of the secrets. Absent in sources stored by older versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        encoding: Option<KeyEncoding>,
    },
    /// `Authorization: Bearer <token>`. Tokens are stored as SHA-256.
    Bearer {
        /// Digests of the accepted tokens.
        tokens: Vec<Digest>,
    },
    /// `Authorization: Bearer sgk_...` with an API key of the tenant that has the scope `ingest`.
    Key,
    /// No authentication. Has to be chosen explicitly.
    Open,
    /// The SET itself is signed and is pushed according to RFC 8935. Only for the form [`Form::Set`], and the only proof
    /// of its source.
    Jws(JwsProof),
}

/// Requirements for the signed SETs of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwsProof {
    /// Required `iss`, compared exactly.
    pub issuer: String,
    /// The issuer's public keys.
    pub keys: KeyOrigin,
    /// Accepted algorithms. Never empty.
    pub algorithms: Vec<Algorithm>,
    /// Accepted audiences, one of which must be in `aud`. Never empty.
    pub audience: Vec<String>,
    /// Encrypted value that the `Authorization` header must have. `None` if the header is not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Sealed>,
}

/// The origin of an issuer's public keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyOrigin {
    /// URL of a JWKS (RFC 7517), which is fetched.
    JwksUrl(String),
    /// A JWKS as JSON text.
    Jwks(String),
}

/// Accepted deviations from the standards of signed SETs, each for senders that need it. All are off by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Compat {
    /// Accept tokens without `typ` in their header, as older RISC senders write them.
    pub allow_missing_typ: bool,
    /// Accept the claims `sub` and `exp` (Google and other RISC senders before SSF 1.0) and remove them. `sub` becomes
    /// a `sub_id` of the format iss_sub if there is no other subject.
    pub allow_sub_and_exp: bool,
    /// Accept a subject inside the event (`subject`, as in RISC and CAEP drafts: Google, Okta, Apple) if there is no
    /// `sub_id`, and identifiers in their old spelling (`subject_type`, `iss-sub`). The stored `sub_id` has the new form.
    pub allow_subject_in_event: bool,
    /// Read `issuer` as `iss` in identifiers of the format iss_sub, as caep.dev wrote them.
    pub allow_issuer_in_iss_sub: bool,
    /// Accept a number as `txn`, as in drafts of SSF. It becomes text.
    pub allow_numeric_txn: bool,
}

impl Compat {
    /// Whether no deviation is accepted.
    pub fn is_strict(&self) -> bool {
        *self == Self::default()
    }
}

/// How the text of a shared secret encodes the key. A secret with the prefix `whsec_` is always base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyEncoding {
    /// The UTF-8 bytes of the text are the key.
    Text,
    /// The text is base64 (RFC 4648 section 4), with or without padding.
    Base64,
}

/// Header and format of a MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MacHeader {
    Wso2,
    Hub,
    Logto,
    Standard,
}
