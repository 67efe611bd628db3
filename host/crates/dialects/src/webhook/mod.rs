//! Standard Webhooks, also as sent by Svix.

mod verify;

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use ed25519_dalek::Signer as _;
use setgate_base::crypto::hmac_sha256;
use setgate_domain::source::MacHeader;
use setgate_domain::subscription::SigningScheme;

use crate::dialect::Dialect;
use crate::scheme::{Headers, Message, Notation, Scheme};
use crate::signing::{Error, Key};

/// The delivery id. Deliveries carry it in every scheme, and receivers use it to detect duplicates.
pub(crate) const ID: &str = "webhook-id";
/// The time of the signature in seconds since the Unix epoch.
const TIMESTAMP: &str = "webhook-timestamp";
/// The signatures, separated by spaces.
const SIGNATURE: &str = "webhook-signature";
/// Svix's own names for the same headers, in requests.
const SVIX_ID: &str = "svix-id";
const SVIX_TIMESTAMP: &str = "svix-timestamp";
const SVIX_SIGNATURE: &str = "svix-signature";

pub(crate) const DIALECT: Dialect = Dialect {
    title: "Standard Webhooks",
    scheme: Some(Scheme {
        proof: MacHeader::Standard,
        signing: SigningScheme::Standard,
        about: "`v1,<base64>`, with `webhook-id` and `webhook-timestamp` (Standard Webhooks).",
        about_proof: "Standard Webhooks: `webhook-signature: v1,<base64>` with `webhook-id` and `webhook-timestamp`, or \
                      the same headers with the prefix `svix-`. The timestamp must be within the source's \
                      `timestamp_tolerance_s`.",
        about_signing: "Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature` with `v1` for symmetric \
                      and `v1a` for ed25519 keys.",
        delivery_id_headers: &[ID, SVIX_ID],
        signature_headers: &[SIGNATURE, SVIX_SIGNATURE],
        reserved_headers: &["webhook-*"],
        supports_multiple_signatures: true,
        notation: Notation::Prefixed,
        verify: verify::verify,
        sign,
    }),
    form: None,
    products: &[],
    unlisted: None,
};

fn sign(keys: &[Arc<Key>], message: &Message<'_>) -> Result<Headers, Error> {
    let timestamp_s = message.now.as_seconds().to_string();
    let entries: Vec<String> = keys.iter().map(|key| entry(key, message, &timestamp_s)).collect();
    Ok(vec![(ID, message.id.to_owned()), (TIMESTAMP, timestamp_s), (SIGNATURE, entries.join(" "))])
}

/// One entry of `webhook-signature`: `v1,` or `v1a,` and padded base64, over `{id}.{timestamp}.{body}` (Standard
/// Webhooks, "Signature scheme").
fn entry(key: &Key, message: &Message<'_>, timestamp_s: &str) -> String {
    let head = format!("{}.{timestamp_s}.", message.id);
    match key {
        Key::Symmetric(key) => {
            format!("v1,{}", BASE64_STANDARD.encode(hmac_sha256(key, &[head.as_bytes(), message.body])))
        }
        Key::Ed25519(key) => {
            let signed = key.sign(&[head.as_bytes(), message.body].concat());
            format!("v1a,{}", BASE64_STANDARD.encode(signed.to_bytes()))
        }
    }
}

#[cfg(test)]
mod tests;
