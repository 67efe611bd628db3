//! Signed SETs of a run: the key of the signed source, the check of received SETs, and the receiver that polls.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use setgate_jose::{Algorithm, JwkSet, Jws, SigningKey};
use tokio::task::JoinHandle;

use super::load::{AUDIENCE, End, ISSUER, SIGNED_SOURCE, SOURCES, Sent, Target};
use super::record::Record;
use crate::client::Client;

/// The public URL of the host.
pub const PUBLIC_URL: &str = "https://edge.example";
/// Media type of a signed SET.
const MEDIA_TYPE: &str = "application/secevent+jwt";
/// Pause (ms) before a poll is repeated.
const AGAIN_MS: u64 = 15;
/// The most SETs of one answer. A small number makes many acknowledgements.
const SETS_MAX: u32 = 5;

/// Signs and sends the events of the signed source.
pub struct SignedSource {
    key: SigningKey,
    client: Client,
    path: String,
}

impl SignedSource {
    /// With a new key.
    pub fn new(client: &Client) -> Self {
        let (tenant, source) = SOURCES[SIGNED_SOURCE];
        let key = SigningKey::generate(Algorithm::EdDsa).expect("a key");
        Self { key, client: client.without_key(), path: format!("/t/{tenant}/push/{source}") }
    }

    /// The source in the form of the API.
    pub fn settings(&self) -> Value {
        let key: Value = serde_json::from_str(self.key.public_jwk()).expect("JSON");
        json!({"form": "set", "proofs": [
            {"kind": "jws", "issuer": ISSUER, "audience": [AUDIENCE], "jwks": {"keys": [key]}},
        ]})
    }

    /// Signs the claims of an event.
    pub fn sign(&self, claims: &str) -> String {
        self.key.sign("secevent+jwt", claims).expect("a signature")
    }

    /// Sends a token. The answer's status and text, or an error if there is none.
    pub async fn try_send(&self, token: &str) -> Result<(u16, String), String> {
        let headers = [("content-type", MEDIA_TYPE)];
        let answer = self.client.try_send(Method::POST, &self.path, &headers, token.to_owned()).await?;
        Ok((answer.status, answer.text()))
    }
}

/// Verifies a SET that the host signed and compares its claims with those of the sent event. Returns its `jti`.
///
/// # Errors
/// The difference.
pub fn check(target: &Target, keys: &JwkSet, seed: u64, token: &[u8]) -> Result<String, String> {
    let jws = Jws::parse(token).map_err(|error| error.to_string())?;
    jws.verify(keys, &[Algorithm::EdDsa]).map_err(|error| error.to_string())?;
    let mut claims: Value = serde_json::from_slice(jws.payload()).map_err(|error| error.to_string())?;
    let number = claims["txn"].as_str().and_then(Sent::number_of).ok_or("an event that was never sent")?;
    let sent = Sent::new(seed, number);
    if !target.sources.contains(&sent.source) {
        return Err(format!("event {number} is not for this subscription"));
    }
    if target.end_of(&sent) == End::Dropped {
        return Err(format!("event {number} was to be dropped"));
    }
    let jti = claims["jti"].as_str().ok_or("there is no jti")?.to_owned();
    let mut expected = target.claims_of(&sent);
    expected["iss"] = json!(format!("{PUBLIC_URL}/t/{}", target.tenant));
    for own in ["jti", "iat"] {
        expected[own] = claims[own].take();
        claims[own] = expected[own].clone();
    }
    if claims == expected { Ok(jti) } else { Err(format!("event {number} has other claims than it has to")) }
}

/// A receiver that polls, until it is dropped.
pub struct Polling(JoinHandle<()>);

impl Drop for Polling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Polling {
    /// Starts it.
    pub fn start(
        target: &'static Target,
        (client, path, token): (Client, String, String),
        keys: JwkSet,
        seed: u64,
        record: &Arc<Record>,
    ) -> Self {
        let record = record.clone();
        Self(tokio::spawn(async move {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
            // Received, and not acknowledged by an answered poll.
            let mut received: Vec<String> = Vec::new();
            loop {
                let body = json!({"ack": received, "maxEvents": SETS_MAX}).to_string();
                let answer = match client.try_send(Method::POST, &path, &headers, body).await {
                    Ok(answer) if answer.status == 200 => answer,
                    Ok(answer) if matches!(answer.status, 429 | 503) => {
                        tokio::time::sleep(Duration::from_millis(AGAIN_MS)).await;
                        continue;
                    }
                    Ok(answer) => {
                        record.fault(format!("a poll was answered {}: {}", answer.status, answer.text()));
                        return;
                    }
                    // The host is dead, so it is unknown whether the acknowledgements were applied.
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(AGAIN_MS)).await;
                        continue;
                    }
                };
                record.acknowledged(&received);
                received.clear();
                for (jti, token) in answer.json()["sets"].as_object().expect("`sets` is always an object") {
                    let token = token.as_str().unwrap_or_default().as_bytes();
                    record.arrived(jti, token);
                    match check(target, &keys, seed, token) {
                        Ok(of_token) if of_token == *jti => {}
                        Ok(other) => record.fault(format!("the SET of {jti} has the jti {other}")),
                        Err(why) => record.fault(format!("{jti} at `{}`: {why}", target.name)),
                    }
                    record.ended(jti, Some(200));
                    received.push(jti.clone());
                }
            }
        }))
    }
}
