//! Sources and issuers for the tests of this folder.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use setgate_base::clock::Clock;
use setgate_domain::source::{Compat, Form, KeyOrigin, Proof, Source};
use setgate_domain::time::Timestamp;
use setgate_egress::{Egress, Options};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

pub(super) fn source(tenant: &str, name: &str) -> Source {
    Source {
        tenant: tenant.parse().unwrap(),
        name: name.parse().unwrap(),
        form: Form::Set,
        proofs: vec![Proof::Open],
        issuer: None,
        issuers_allowed: Vec::new(),
        websub_topics: Vec::new(),
        timestamp_tolerance_s: 300,
        allow_sha1: false,
        allow_plain_event_names: false,
        replace_lone_surrogates: false,
        compat: Compat::default(),
        created_at: Timestamp::from_millis(0),
    }
}

/// An egress that reaches loopback.
pub(super) fn egress(clock: &Clock) -> Egress {
    let allow = vec!["127.0.0.0/8".parse().unwrap()];
    Egress::new(Options { allow, allow_http: true, ..Options::default() }, clock.clone(), Vec::new()).unwrap()
}

/// A JWKS with an Ed25519 key of this `kid`.
pub(super) fn jwks(kid: &str) -> String {
    // RFC 8037 appendix A.2.
    format!(
        r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}]}}"#
    )
}

/// A server of a JWKS on loopback.
pub(super) struct Issuer {
    pub(super) origin: KeyOrigin,
    /// The response to each request. `None` for none at all.
    response: Arc<Mutex<Option<String>>>,
    hits: Arc<AtomicUsize>,
}

impl Issuer {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = KeyOrigin::JwksUrl(format!("http://{}/jwks.json", listener.local_addr().unwrap()));
        let response: Arc<Mutex<Option<String>>> = Arc::default();
        let hits: Arc<AtomicUsize> = Arc::default();
        let (given, counted) = (response.clone(), hits.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (given, counted) = (given.clone(), counted.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                    let response = given.lock().unwrap().clone();
                    match response {
                        Some(response) => drop(stream.write_all(response.as_bytes()).await),
                        None => std::future::pending().await,
                    }
                });
            }
        });
        Self { origin, response, hits }
    }

    /// Serves a JWKS with a key of this `kid`.
    pub(super) fn serve(&self, kid: &str) {
        self.respond("200 OK", "application/json", &jwks(kid));
    }

    pub(super) fn respond(&self, status: &str, content_type: &str, body: &str) {
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}", body.len());
        *self.response.lock().unwrap() = Some(format!("{head}\r\nconnection: close\r\n\r\n{body}"));
    }

    /// Number of requests so far.
    pub(super) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}
