//! A signature scheme: how requests of sources are verified, and how deliveries are signed.

use std::sync::Arc;

use http::HeaderMap;
use setgate_domain::source::{KeyEncoding, MacHeader};
use setgate_domain::subscription::SigningScheme;
use setgate_domain::time::Timestamp;

use crate::proof::{MacError, SecretKey, Verified};
use crate::signing::{Error, Key};

/// A signature scheme.
#[derive(Debug)]
pub struct Scheme {
    /// The stored name as the `header` of a source's proof.
    pub proof: MacHeader,
    /// The stored name as the scheme of a subscription.
    pub signing: SigningScheme,
    /// Value of the header: the row of the scheme in OpenAPI.
    pub about: &'static str,
    /// The scheme as the proof of a source, in OpenAPI.
    pub about_proof: &'static str,
    /// The scheme as the signature of deliveries, in OpenAPI.
    pub about_signing: &'static str,
    /// The headers of requests that carry the sender's delivery id.
    pub(crate) delivery_id_headers: &'static [&'static str],
    /// The headers that may carry the signature of a request, in lower case. The first one is the header of deliveries.
    pub signature_headers: &'static [&'static str],
    /// The headers that subscriptions cannot set, because the scheme sets them. `*` at the end matches any rest.
    pub reserved_headers: &'static [&'static str],
    /// Whether the header carries several signatures, so that two keys can sign at the same time.
    pub supports_multiple_signatures: bool,
    /// The notation of the secrets.
    pub(crate) notation: Notation,
    /// Verifies the signature of a request to a source.
    pub(crate) verify: fn(&SignedRequest<'_>) -> Result<Verified, MacError>,
    /// The headers of a delivery. The keys start with the current one and are never empty.
    pub(crate) sign: fn(&[Arc<Key>], &Message<'_>) -> Result<Headers, Error>,
}

/// Headers of a request: names in lower case, and values.
pub type Headers = Vec<(&'static str, String)>;

/// The notation of a scheme's secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notation {
    /// Standard Webhooks: `whsec_` or `whsk_` and base64.
    Prefixed,
    /// Any text.
    Text,
}

/// A request to a source, and the rules for its signature.
#[derive(Debug)]
pub(crate) struct SignedRequest<'a> {
    pub(crate) headers: &'a HeaderMap,
    /// The exact bytes that were signed.
    pub(crate) body: &'a [u8],
    /// The usable keys of the source. Never empty.
    pub(crate) keys: &'a [SecretKey],
    pub(crate) now: Timestamp,
    /// Accepted difference between a signed timestamp and the current time, in seconds.
    pub(crate) tolerance_s: u32,
    pub(crate) allow_sha1: bool,
}

/// A body to be signed.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// The delivery id: printable ASCII without `.`.
    pub(crate) id: &'a str,
    pub(crate) now: Timestamp,
    pub(crate) body: &'a [u8],
}

impl Scheme {
    /// The stored name, in sources and in subscriptions.
    pub fn name(&self) -> &'static str {
        self.signing.as_str()
    }

    /// The header of the signature.
    pub fn header(&self) -> &'static str {
        self.signature_headers[0]
    }

    /// How the secrets of a source are encoded by default.
    pub fn secret_encoding(&self) -> KeyEncoding {
        match self.notation {
            Notation::Prefixed => KeyEncoding::Base64,
            Notation::Text => KeyEncoding::Text,
        }
    }
}
