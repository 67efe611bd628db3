//! A transmitter of signed SETs (RFC 8417, RFC 8935) that shares no code with Setgate: it signs with Ed25519, and serves
//! its JWKS over http.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{Answer, Client};

/// `iss` of the transmitter.
pub const ISSUER: &str = "https://idp.example";
/// `aud` of its SETs.
pub const AUDIENCE: &str = "https://rp.example/";
/// The content type of a signed SET.
pub const SIGNED_SET: (&str, &str) = ("content-type", "application/secevent+jwt");

/// Base64url without padding.
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The claims of a SET about a user.
pub fn claims(jti: &str) -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "jti": jti, "iat": 1_700_000_000, "txn": "8f2c",
        "sub_id": {"format": "email", "email": "jane@example.com"},
        "events": {crate::event::SET_TYPE: {"event_timestamp": 1_699_999_990, "initiating_entity": "admin"}},
    })
}

/// An Ed25519 key.
pub struct SetKey {
    kid: String,
    key: SigningKey,
}

impl SetKey {
    /// The key with this `kid`, which is the same in every run.
    pub fn new(kid: &str) -> Self {
        Self { kid: kid.to_owned(), key: SigningKey::from_bytes(&Sha256::digest(kid).into()) }
    }

    /// Its public half (RFC 8037).
    pub fn jwk(&self) -> Value {
        let x = base64url(self.key.verifying_key().as_bytes());
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid, "use": "sig", "alg": "EdDSA"})
    }

    /// The usual header of a token.
    pub fn header(&self) -> Value {
        json!({"alg": "EdDSA", "kid": self.kid, "typ": "secevent+jwt"})
    }

    /// A signed SET.
    pub fn token(&self, claims: &Value) -> String {
        self.token_of(&self.header().to_string(), &claims.to_string())
    }

    /// A signed token with any header and payload.
    pub fn token_of(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", base64url(header), base64url(payload));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", base64url(signature.to_bytes()))
    }
}

/// A JWKS with these keys.
pub fn jwks(keys: &[&SetKey]) -> Value {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()})
}

/// A server of a JWKS; stops on drop.
pub struct KeyServer {
    /// The URL of the JWKS.
    pub url: String,
    book: Arc<Book>,
    serving: JoinHandle<()>,
}

struct Book {
    answer: Mutex<(u16, &'static str, String)>,
    hits: AtomicUsize,
    open: watch::Sender<bool>,
}

impl KeyServer {
    /// A server that publishes these keys.
    pub async fn start(keys: &[&SetKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port to listen on");
        let url = format!("http://{}/jwks.json", listener.local_addr().expect("a bound address"));
        let book = Arc::new(Book {
            answer: Mutex::new((200, "application/json", jwks(keys).to_string())),
            hits: AtomicUsize::new(0),
            open: watch::Sender::new(true),
        });
        let app = Router::new().fallback(give).with_state(book.clone());
        let serving = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("it serves until it is aborted");
        });
        Self { url, book, serving }
    }

    /// Publishes these keys instead.
    pub fn publish(&self, keys: &[&SetKey]) {
        self.answer(200, "application/jwk-set+json", &jwks(keys).to_string());
    }

    /// Gives this answer from now on.
    pub fn answer(&self, status: u16, content_type: &'static str, body: &str) {
        *self.book.answer() = (status, content_type, body.to_owned());
    }

    /// Answers nothing until [`KeyServer::release`].
    pub fn hold(&self) {
        self.book.open.send_replace(false);
    }

    /// Answers what is held.
    pub fn release(&self) {
        self.book.open.send_replace(true);
    }

    /// Requests so far.
    pub fn hits(&self) -> usize {
        self.book.hits.load(Ordering::SeqCst)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Book {
    fn answer(&self) -> MutexGuard<'_, (u16, &'static str, String)> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn give(State(book): State<Arc<Book>>) -> Response {
    book.hits.fetch_add(1, Ordering::SeqCst);
    let mut open = book.open.subscribe();
    // Fails only if the server is gone.
    let _closed = open.wait_for(|open| *open).await.is_err();
    let (status, content_type, body) = book.answer().clone();
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// Pushes a token to a path.
pub async fn push(client: &Client, path: &str, token: &str) -> Answer {
    client.without_key().send(Method::POST, path, &[SIGNED_SET], token.to_owned()).await
}

/// Describes the deviations of an answer from a refusal of RFC 8935 section 2.3 with this code. `None` if there are none.
pub fn not_the_refusal(answer: &Answer, err: &str) -> Option<String> {
    let said = format!("{} {:?} {}", answer.status, answer.headers, answer.text());
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else { return Some(format!("not JSON: {said}")) };
    let members: Vec<_> = body.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let is_it = answer.status == 400
        && answer.header("content-type") == Some("application/json")
        && answer.header("content-language") == Some("en")
        && body["err"] == err
        && body["description"].as_str().is_some_and(|text| text.len() > 10)
        && members == ["err", "description"];
    (!is_it).then(|| format!("expected 400 with `{err}`: {said}"))
}
