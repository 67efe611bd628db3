//! The receivers of signed SETs: one is pushed to, one polls. Their checks share no code with `setgate-jose`.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use http::Method;
use rsa::traits::SignatureScheme as _;
use rsa::{BoxedUint, Pkcs1v15Sign, PublicKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::receiver::Receiver;
use crate::cli::client::Client;

/// The keys and the audience with which a receiver verifies SETs.
#[derive(Debug, Clone)]
pub(super) struct SetTrust {
    /// The published JWKS.
    pub(super) jwks: Value,
    pub(super) issuer: String,
    pub(super) audience: &'static str,
}

impl SetTrust {
    /// The `jti` of a SET, and whether its signature, `typ`, `iss` and `aud` are right. `None` if it is no token.
    pub(super) fn read(&self, token: &[u8]) -> Option<(String, bool)> {
        let token = std::str::from_utf8(token).ok()?;
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let (header, claims) = (decoded_json(header)?, decoded_json(payload)?);
        let jti = claims["jti"].as_str()?.to_owned();
        let good = header["typ"] == "secevent+jwt"
            && claims["iss"] == *self.issuer
            && claims["aud"] == self.audience
            && self.verify(&header, signed, signature).is_some();
        Some((jti, good))
    }

    fn verify(&self, header: &Value, signed: &str, signature: &str) -> Option<()> {
        let keys = self.jwks["keys"].as_array()?;
        let key = keys.iter().find(|key| key["kid"] == header["kid"] && key["alg"] == header["alg"])?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        match header["alg"].as_str()? {
            "RS256" => {
                let number = |name: &str| Some(BoxedUint::from_be_slice_vartime(&decoded(key[name].as_str()?)?));
                let key = PublicKey::new(number("n")?, number("e")?).ok()?;
                let digest = Sha256::digest(signed.as_bytes());
                Pkcs1v15Sign::new_unprefixed().verify(&key, &with_prefix(&digest), &signature).ok()
            }
            "EdDSA" => {
                let key: [u8; 32] = decoded(key["x"].as_str()?)?.try_into().ok()?;
                let key = VerifyingKey::from_bytes(&key).ok()?;
                key.verify_strict(signed.as_bytes(), &Signature::from_slice(&signature).ok()?).ok()
            }
            _ => None,
        }
    }
}

/// DigestInfo of SHA-256 (RFC 8017 section 9.2, note 1).
fn with_prefix(digest: &[u8]) -> Vec<u8> {
    const PREFIX: [u8; 19] = [
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04,
        0x20,
    ];
    [&PREFIX[..], digest].concat()
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn decoded_json(text: &str) -> Option<Value> {
    serde_json::from_slice(&decoded(text)?).ok()
}

/// Polls until the receiver stops, and acknowledges each SET with the next poll.
pub(super) fn start_polling(
    receiver: &Receiver,
    (base, path, token): (&str, &str, String),
    who: String,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (client, path, receiver) = (Client::new(base, Some(token))?, path.to_owned(), receiver.clone());
    tokio::spawn(async move {
        let mut received: Vec<String> = Vec::new();
        let headers = [("content-type", "application/json")];
        loop {
            let poll = json!({"ack": received}).to_string();
            let answer = tokio::select! {
                answer = client.send(Method::POST, &path, &headers, poll) => answer,
                () = stop.cancelled() => return,
            };
            let sets: Option<Value> = answer.ok().and_then(|answer| serde_json::from_slice(&answer.body).ok());
            let Some(sets) = sets.as_ref().and_then(|answer| answer["sets"].as_object()) else {
                // The host restarts.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            received = sets.keys().cloned().collect();
            for token in sets.values() {
                receiver.take_set(&who, token.as_str().unwrap_or_default().as_bytes());
            }
        }
    });
    Ok(())
}

/// The trust in a tenant's issuer, from what it publishes.
pub(super) async fn trust(
    client: &Client,
    tenant: &str,
    issuer: String,
    audience: &'static str,
) -> anyhow::Result<SetTrust> {
    let jwks = client.json(Method::GET, &format!("/t/{tenant}/jwks.json"), None).await.context("the JWKS")?;
    Ok(SetTrust { jwks, issuer, audience })
}
