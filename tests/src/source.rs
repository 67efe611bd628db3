//! Senders that sign as the products do.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::signature::{hmac_hex, standard_headers};

/// The supported products, each with its kind of proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seed {
    /// WSO2 Identity Server: `x-wso2-event-signature`.
    Wso2,
    /// Asgardeo, through its WebSub hub: `X-Hub-Signature`.
    Asgardeo,
    /// Logto: `logto-signature-sha-256`.
    Logto,
    /// The webhooks platform, signed with Standard Webhooks.
    Platform,
    /// The webhooks platform with a bearer token.
    PlatformBearer,
    /// Plain SETs with a bearer token.
    Set,
    /// Plain SETs without a proof.
    Open,
}

impl Seed {
    fn form(self) -> &'static str {
        match self {
            Self::Wso2 | Self::Asgardeo => "wso2",
            Self::Logto => "logto",
            Self::Platform | Self::PlatformBearer => "platform",
            Self::Set | Self::Open => "set",
        }
    }

    /// The secret shared by sources of this product and their senders.
    pub fn secret(self) -> &'static str {
        match self {
            Self::Platform => "whsec_c291cmNlLXNlY3JldC1vZi10aGUtcGxhdGZvcm0=",
            _ => "source-secret-5d1c1bfe",
        }
    }

    /// The settings of a source of this product, in the form of the API.
    pub fn settings(self) -> Value {
        let hmac = |header: &str| json!({"kind": "hmac", "header": header, "secrets": [self.secret()]});
        let proof = match self {
            Self::Wso2 => hmac("wso2"),
            Self::Asgardeo => hmac("hub"),
            Self::Logto => hmac("logto"),
            Self::Platform => hmac("standard"),
            Self::PlatformBearer | Self::Set => json!({"kind": "bearer", "tokens": [self.secret()]}),
            Self::Open => json!({"kind": "open"}),
        };
        json!({"form": self.form(), "proofs": [proof]})
    }

    /// The headers with which a sender proves this body.
    pub fn proof(self, body: &[u8]) -> Vec<(&'static str, String)> {
        match self {
            Self::Wso2 => vec![("x-wso2-event-signature", format!("sha256={}", hmac_hex(self.secret(), body)))],
            Self::Asgardeo => vec![("x-hub-signature", format!("sha256={}", hmac_hex(self.secret(), body)))],
            Self::Logto => vec![("logto-signature-sha-256", hmac_hex(self.secret(), body))],
            Self::Platform => {
                // A retry of the same body has the same id.
                let id = format!("msg_{}", &hmac_hex("id", body)[..24]);
                standard_headers(self.secret(), &id, now_s(), body)
            }
            Self::PlatformBearer | Self::Set => vec![("authorization", format!("Bearer {}", self.secret()))],
            Self::Open => Vec::new(),
        }
    }
}

/// A source as seen by its sender.
#[derive(Clone)]
pub struct Source {
    /// The path for its events.
    pub path: String,
    seed: Seed,
    client: Client,
}

/// The host's answer to an accepted event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The host's id of the event.
    pub event: String,
    /// Whether it had been accepted before.
    pub duplicate: bool,
}

impl Accepted {
    /// Parses a 202 answer.
    pub fn of(answer: &Answer) -> Self {
        let said = answer.json();
        let event = said["event"].as_str().expect("an event id").to_owned();
        Self { event, duplicate: said["duplicate"].as_bool().expect("whether it is a duplicate") }
    }
}

impl Source {
    pub(crate) fn new(path: &str, seed: Seed, client: &Client) -> Self {
        Self { path: path.to_owned(), seed, client: client.without_key() }
    }

    /// The same source, with events sent to the host of `client`.
    pub fn at(&self, client: &Client) -> Self {
        Self { client: client.without_key(), ..self.clone() }
    }

    /// Sends a body with its proof, and returns any answer. An error if there is none.
    pub async fn try_send(&self, body: impl Into<Bytes>) -> Result<Answer, String> {
        let body = body.into();
        let proof = self.seed.proof(&body);
        let mut headers = vec![crate::client::JSON];
        headers.extend(proof.iter().map(|(name, value)| (*name, value.as_str())));
        self.client.try_send(Method::POST, &self.path, &headers, body).await
    }

    /// Sends a body with its proof; there must be an answer.
    pub async fn send(&self, body: impl Into<Bytes>) -> Answer {
        self.try_send(body).await.expect("the host answers")
    }

    /// Sends a body that must be accepted.
    pub async fn accept(&self, body: impl Into<Bytes>) -> Accepted {
        Accepted::of(&self.send(body).await.expect(202))
    }
}

#[expect(clippy::disallowed_methods, reason = "a sender signs with the time of its own machine")]
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
