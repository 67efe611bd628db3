//! `X-Hub-Signature: method=hex` (W3C WebSub section 8), and GitHub's additional `X-Hub-Signature-256`.

mod verify;

use std::sync::Arc;

use setgate_domain::source::MacHeader;
use setgate_domain::subscription::SigningScheme;

use crate::dialect::Dialect;
use crate::scheme::{Headers, Message, Notation, Scheme};
use crate::signing::{Error, Key, body_mac};

/// The signature, of requests and of deliveries.
const SIGNATURE: &str = "x-hub-signature";
/// GitHub's header in addition to [`SIGNATURE`], in requests: `sha256=hex`.
const SIGNATURE_256: &str = "x-hub-signature-256";

pub(crate) const DIALECT: Dialect = Dialect {
    title: "WebSub",
    scheme: Some(Scheme {
        proof: MacHeader::Hub,
        signing: SigningScheme::Hub,
        about: "`<sha256|sha384|sha512>=<hex>`: HMAC of the body (W3C WebSub section 8).",
        about_proof: "`X-Hub-Signature: <sha256|sha384|sha512>=<hex>` (WebSub section 8) or GitHub's \
                      `X-Hub-Signature-256`. The strongest signature in the request is verified. SHA-1 alone is \
                      rejected unless the source has `allow_sha1`.",
        about_signing: "`X-Hub-Signature: sha256=<hex>` (WebSub).",
        delivery_id_headers: &[],
        signature_headers: &[SIGNATURE, SIGNATURE_256],
        reserved_headers: &[SIGNATURE],
        supports_multiple_signatures: false,
        notation: Notation::Text,
        verify: verify::verify,
        sign,
    }),
    form: None,
    products: &[],
    unlisted: None,
};

fn sign(keys: &[Arc<Key>], message: &Message<'_>) -> Result<Headers, Error> {
    Ok(vec![(SIGNATURE, format!("sha256={}", body_mac(keys, message)?))])
}

#[cfg(test)]
mod tests;
