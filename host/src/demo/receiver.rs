//! The receiver: accepts deliveries and verifies each signature according to the specifications. It shares no code with
//! the dialects, so that a mistake there is detected here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use hmac::{Hmac, Mac};
use http::{HeaderMap, StatusCode};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

use super::signed::SetTrust;

/// How to verify the deliveries of one subscription, which is identified by the request path.
#[derive(Debug, Clone)]
pub(super) enum Trust {
    /// `webhook-signature` with `v1`, under this `whsec_` secret.
    Standard(String),
    /// `webhook-signature` with `v1a`, under this `whpk_` key.
    StandardEd25519(String),
    /// A header with a prefix and the hex HMAC-SHA256 of the body, under this secret.
    HexMac { header: &'static str, prefix: &'static str, secret: String },
    /// A signed SET in the body.
    Set(SetTrust),
}

/// One received delivery.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) at: Instant,
    pub(super) verified: bool,
    pub(super) copies: u32,
}

#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<Known>>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Known {
    trust: HashMap<String, Trust>,
    arrivals: HashMap<String, Arrival>,
    refused: u64,
}

impl Known {
    fn arrived(&mut self, id: String, at: Instant, verified: bool) {
        let arrival = self.arrivals.entry(id).or_insert(Arrival { at, verified, copies: 0 });
        arrival.copies += 1;
        arrival.verified &= verified;
    }
}

impl Receiver {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let receiver = Self { address: listener.local_addr()?, state: Arc::default(), stop: CancellationToken::new() };
        let app = Router::new().route("/{who}", post(take)).with_state(receiver.clone());
        let stop = receiver.stop.clone();
        tokio::spawn(async move {
            let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "the demo's receiver ended");
            }
        });
        Ok(receiver)
    }

    pub(super) fn trust(&self, who: &str, trust: Trust) {
        self.lock().trust.insert(who.to_owned(), trust);
    }

    /// Records a signed SET that arrived by push or poll. False if it is not verified.
    pub(super) fn take_set(&self, who: &str, token: &[u8]) -> bool {
        let at = Instant::now();
        let mut known = self.lock();
        let read = match known.trust.get(who) {
            Some(Trust::Set(trust)) => trust.read(token),
            _ => None,
        };
        let Some((id, verified)) = read else {
            known.refused += 1;
            return false;
        };
        known.arrived(id, at, verified);
        verified
    }

    /// Ends with the receiver.
    pub(super) fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    pub(super) fn arrival(&self, delivery: &str) -> Option<Arrival> {
        self.lock().arrivals.get(delivery).cloned()
    }

    /// The received deliveries, and the number of requests that were not deliveries.
    pub(super) fn totals(&self) -> (Vec<Arrival>, u64) {
        let known = self.lock();
        (known.arrivals.values().cloned().collect(), known.refused)
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn take(
    State(receiver): State<Receiver>,
    Path(who): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    if headers.get("content-type").is_some_and(|given| given == "application/secevent+jwt") {
        let verified = receiver.take_set(&who, &body);
        return if verified { StatusCode::ACCEPTED } else { StatusCode::BAD_REQUEST };
    }
    let at = Instant::now();
    let mut known = receiver.lock();
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let (Some(trust), Some(id)) = (known.trust.get(&who), id) else {
        known.refused += 1;
        return StatusCode::BAD_REQUEST;
    };
    let verified = verify(trust, &headers, &body).is_some();
    known.arrived(id, at, verified);
    if verified { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED }
}

/// `Some` if the signature is valid.
fn verify(trust: &Trust, headers: &HeaderMap, body: &[u8]) -> Option<()> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    match trust {
        // A SET is not sent as a webhook.
        Trust::Set(_) => None,
        Trust::HexMac { header, prefix, secret } => {
            let given = hex::decode(text(header)?.strip_prefix(prefix)?).ok()?;
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
            mac.update(body);
            mac.verify_slice(&given).ok()
        }
        Trust::Standard(secret) => {
            let key = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
            let signed = signed_bytes(headers, body)?;
            entries(text("webhook-signature")?, "v1").find_map(|given| {
                let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
                mac.update(&signed);
                mac.verify_slice(&given).ok()
            })
        }
        Trust::StandardEd25519(public) => {
            let key: [u8; 32] = STANDARD.decode(public.strip_prefix("whpk_")?).ok()?.try_into().ok()?;
            let key = VerifyingKey::from_bytes(&key).ok()?;
            let signed = signed_bytes(headers, body)?;
            entries(text("webhook-signature")?, "v1a")
                .find_map(|given| key.verify_strict(&signed, &Signature::from_slice(&given).ok()?).ok())
        }
    }
}

/// The signed content of Standard Webhooks: `{id}.{timestamp}.{body}`.
fn signed_bytes(headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
    let id = headers.get("webhook-id")?.to_str().ok()?;
    let at = headers.get("webhook-timestamp")?.to_str().ok()?;
    Some([id.as_bytes(), b".", at.as_bytes(), b".", body].concat())
}

fn entries<'a>(list: &'a str, version: &'a str) -> impl Iterator<Item = Vec<u8>> + 'a {
    list.split(' ').filter_map(move |entry| {
        let (given, signature) = entry.split_once(',')?;
        (given == version).then(|| STANDARD.decode(signature).ok())?
    })
}
