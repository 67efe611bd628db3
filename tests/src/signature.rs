//! Signatures, created as by products and verified as by receivers. Uses none of Setgate's code: Standard Webhooks v1
//! is the crate `standardwebhooks`, v1a is `ed25519-dalek`, the others are `hmac`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use hmac::{Hmac, Mac};
use http::HeaderMap;
use sha2::Sha256;

/// HMAC-SHA256 in lower-case hex.
pub fn hmac_hex(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// The headers of a Standard Webhooks request (v1).
pub fn standard_headers(secret: &str, id: &str, at: u64, body: &[u8]) -> Vec<(&'static str, String)> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("whsec_")).expect("base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key of any length");
    for part in [id.as_bytes(), b".", at.to_string().as_bytes(), b".", body] {
        mac.update(part);
    }
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    vec![("webhook-id", id.to_owned()), ("webhook-timestamp", at.to_string()), ("webhook-signature", signature)]
}

/// The key with which a receiver verifies signatures.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Standard Webhooks `v1` with a `whsec_` secret.
    V1(String),
    /// Standard Webhooks `v1a` with a `whpk_` key.
    V1a(String),
    /// A header with a prefix and the hex HMAC-SHA256 of the body.
    Hex {
        /// Name of the header.
        header: &'static str,
        /// The prefix of the hex value.
        prefix: &'static str,
        /// The secret.
        secret: String,
    },
}

impl Trust {
    /// For a scheme, as named by the API, and the keys of its subscription.
    pub fn of(scheme: &str, secret: &str, public: Option<&str>) -> Self {
        let hex = |header, prefix| Self::Hex { header, prefix, secret: secret.to_owned() };
        match (scheme, public) {
            ("standard", Some(public)) => Self::V1a(public.to_owned()),
            ("standard", None) => Self::V1(secret.to_owned()),
            ("hub", _) => hex("x-hub-signature", "sha256="),
            ("wso2", _) => hex("x-wso2-event-signature", "sha256="),
            ("logto", _) => hex("logto-signature-sha-256", ""),
            _ => panic!("there is no scheme `{scheme}`"),
        }
    }

    /// Verifies the signature; the error gives the reason.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
        let text = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.ok_or_else(|| format!("no header `{name}`"))
        };
        match self {
            Self::V1(secret) => standardwebhooks::Webhook::new(secret)
                .and_then(|webhook| webhook.verify(body, headers))
                .map_err(|error| format!("v1: {error}")),
            Self::V1a(public) => {
                let key = STANDARD.decode(public.strip_prefix("whpk_").ok_or("not a whpk_ key")?).ok();
                let key: [u8; 32] = key.and_then(|key| key.try_into().ok()).ok_or("a public key has 32 bytes")?;
                let key = VerifyingKey::from_bytes(&key).map_err(|error| error.to_string())?;
                let signed =
                    [text("webhook-id")?.as_bytes(), b".", text("webhook-timestamp")?.as_bytes(), b".", body].concat();
                let entries = text("webhook-signature")?.split(' ').filter_map(|entry| entry.strip_prefix("v1a,"));
                let holds = |entry: &str| {
                    let signature = STANDARD.decode(entry).ok();
                    let signature = signature.and_then(|signature| Signature::from_slice(&signature).ok());
                    signature.is_some_and(|signature| key.verify_strict(&signed, &signature).is_ok())
                };
                if entries.into_iter().any(holds) { Ok(()) } else { Err("v1a: no signature matches".to_owned()) }
            }
            Self::Hex { header, prefix, secret } => {
                let given = text(header)?.strip_prefix(prefix).ok_or_else(|| format!("{header}: no {prefix}"))?;
                if given == hmac_hex(secret, body) { Ok(()) } else { Err(format!("{header}: does not match")) }
            }
        }
    }
}
