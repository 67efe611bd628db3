//! Receivers with TLS.

use base64::prelude::{BASE64_STANDARD, Engine};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use setgate_base::crypto;
use setgate_domain::secret::Secret;
use tokio_rustls::server::TlsStream;

use super::bodies::counted;
use super::*;

/// A certificate authority.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub(super) struct Issued {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Authority {
    pub(super) fn new() -> Self {
        // Each authority needs a unique name. Otherwise a certificate of another one would look like a forgery.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {}", MADE.fetch_add(1, Ordering::SeqCst));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        pem("CERTIFICATE", self.0.der())
    }

    /// A certificate for a receiver or client of that name.
    pub(super) fn issue(&self, name: &str) -> Issued {
        self.issue_until(name, 4096)
    }

    fn issue_until(&self, name: &str, year: i32) -> Issued {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { certificate: certificate.der().clone(), key: key.serialize_der() }
    }

    /// An identity that trusts only this authority.
    pub(super) fn trusted(&self) -> TlsIdentity {
        TlsIdentity { ca_pem: Some(self.pem()), client: None }
    }
}

impl Issued {
    fn client(&self) -> Option<(String, Secret)> {
        Some((pem("CERTIFICATE", &self.certificate), Secret::new(pem("PRIVATE KEY", &self.key))))
    }

    fn fingerprint(&self) -> String {
        hex::encode(crypto::sha256(&self.certificate))
    }
}

fn pem(kind: &str, der: &[u8]) -> String {
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64_STANDARD.encode(der))
}

/// Whether a receiver requests a client certificate.
pub(super) enum Asks<'a> {
    Nothing,
    Maybe(&'a Authority),
    Always(&'a Authority),
}

/// Listens with that certificate and runs `serve` for each connection after a successful handshake. Returns the port.
pub(super) async fn tls_stream<F>(
    issued: &Issued,
    alpn: &[&str],
    asks: Asks<'_>,
    serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + 'static,
) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let verifier = |authority: &Authority| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
    };
    let builder = match asks {
        Asks::Nothing => builder.with_no_client_auth(),
        Asks::Maybe(authority) => {
            builder.with_client_cert_verifier(verifier(authority).allow_unauthenticated().build().unwrap())
        }
        Asks::Always(authority) => builder.with_client_cert_verifier(verifier(authority).build().unwrap()),
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.key.clone()));
    let mut config = builder.with_single_cert(vec![issued.certificate.clone()], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    receiver(move |stream| {
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        async move {
            match acceptor.accept(stream).into_fallible().await {
                Ok(stream) => serve(stream).await,
                Err((_, mut refused)) => {
                    // A close with unread bytes would reset the connection, and the alert with the reason would be
                    // lost.
                    while refused.read_buf(&mut Vec::new()).await.is_ok_and(|read| read > 0) {}
                }
            }
        }
    })
    .await
}

/// A receiver with that certificate. Returns its port and the number of its handshakes. It answers with the HTTP
/// version, the requested server name, and the fingerprint of the client certificate.
pub(super) async fn tls_receiver(issued: &Issued, alpn: &[&str], asks: Asks<'_>) -> (u16, Arc<AtomicUsize>) {
    let (connections, count) = counted();
    let port = tls_stream(issued, alpn, asks, move |stream| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let session = stream.get_ref().1;
            let sni = session.server_name().unwrap_or("none").to_owned();
            let client = session.peer_certificates().and_then(|chain| chain.first());
            let client = client.map_or("none".to_owned(), |der| hex::encode(crypto::sha256(der)));
            let answer = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let text = format!("{:?} {sni} {client}", request.version());
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(body, BODY.as_bytes());
                    Ok::<_, std::convert::Infallible>(hyper::Response::new(Full::new(Bytes::from(text))))
                }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        }
    })
    .await;
    (port, connections)
}

/// An attempt with that identity.
pub(super) async fn post_as(egress: &Egress, url: &str, identity: TlsIdentity) -> Outcome {
    let plain = Plain { identity, ..Plain::to(url) };
    let mut outcome = egress.post(plain.post()).await.outcome;
    if let Outcome::Answered { headers, .. } = &mut outcome {
        headers.clear();
    }
    outcome
}

/// Options of a host that trusts this authority for all endpoints.
fn trusting(authority: &Authority) -> (tempfile::TempDir, Options) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    (folder, Options { ca_files: vec![path], allow_http: false, ..open() })
}

#[tokio::test]
async fn tls_sends_sni_and_negotiates_alpn() {
    let authority = Authority::new();
    let (_folder, options) = trusting(&authority);
    for (alpn, expected) in [
        (["h2", "http/1.1"].as_slice(), "HTTP/2.0 localhost none"),
        (&["http/1.1"], "HTTP/1.1 localhost none"),
        (&[], "HTTP/1.1 localhost none"),
    ] {
        let (port, _) = tls_receiver(&authority.issue("localhost"), alpn, Asks::Nothing).await;
        let egress = egress(options.clone());
        for _ in 0..2 {
            assert_eq!(post(&egress, &format!("https://localhost:{port}/")).await, answered(200, expected));
        }
    }
}

#[tokio::test]
async fn untrusted_wrong_name_or_expired_certificate_is_refused() {
    let authority = Authority::new();
    let (_folder, options) = trusting(&authority);
    let (port, _) = tls_receiver(&Authority::new().issue("localhost"), &[], Asks::Nothing).await;
    let outcome = post(&egress(options.clone()), &format!("https://localhost:{port}/")).await;
    assert_failed(&outcome, ErrorClass::Tls, "UnknownIssuer");
    let (port, _) = tls_receiver(&authority.issue("receiver.example"), &[], Asks::Nothing).await;
    for host in ["localhost", "127.0.0.1"] {
        let outcome = post(&egress(options.clone()), &format!("https://{host}:{port}/")).await;
        assert_failed(&outcome, ErrorClass::Tls, "not valid for name");
    }
    let (port, _) = tls_receiver(&authority.issue_until("localhost", 2020), &[], Asks::Nothing).await;
    let outcome = post(&egress(options), &format!("https://localhost:{port}/")).await;
    assert_failed(&outcome, ErrorClass::Tls, "expired");
}

#[tokio::test]
async fn endpoint_ca_replaces_default_trust_anchors() {
    let (everywhere, own) = (Authority::new(), Authority::new());
    let (_folder, options) = trusting(&everywhere);
    let egress = egress(options);
    let (usual, _) = tls_receiver(&everywhere.issue("localhost"), &[], Asks::Nothing).await;
    let (special, _) = tls_receiver(&own.issue("localhost"), &[], Asks::Nothing).await;
    let (usual, special) = (format!("https://localhost:{usual}/"), format!("https://localhost:{special}/"));
    assert!(post(&egress, &usual).await.is_success());
    assert_failed(&post(&egress, &special).await, ErrorClass::Tls, "UnknownIssuer");
    assert!(post_as(&egress, &special, own.trusted()).await.is_success());
    // The host's authorities do not apply to an endpoint with its own, and the authorities of one endpoint do not apply
    // to others.
    assert_failed(&post_as(&egress, &usual, own.trusted()).await, ErrorClass::Tls, "UnknownIssuer");
    assert_failed(&post(&egress, &special).await, ErrorClass::Tls, "UnknownIssuer");
}

#[tokio::test]
async fn client_certificate_is_presented_on_request() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let (mine, strangers) = (clients.issue("setgate"), Authority::new().issue("setgate"));
    for alpn in [["h2"].as_slice(), &[]] {
        let (port, _) = tls_receiver(&servers.issue("localhost"), alpn, Asks::Always(&clients)).await;
        let (egress, url) = (egress(open()), format!("https://localhost:{port}/"));
        let with = |client| TlsIdentity { client, ..servers.trusted() };
        assert_failed(&post_as(&egress, &url, with(None)).await, ErrorClass::Tls, "");
        assert_failed(&post_as(&egress, &url, with(strangers.client())).await, ErrorClass::Tls, "");
        match post_as(&egress, &url, with(mine.client())).await {
            Outcome::Answered { status: 200, body_head, .. } => {
                assert!(body_head.ends_with(&mine.fingerprint()), "{body_head}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn connections_are_not_shared_between_identities() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let (one, two) = (clients.issue("one"), clients.issue("two"));
    for alpn in [["h2"].as_slice(), &[]] {
        let (port, connections) = tls_receiver(&servers.issue("localhost"), alpn, Asks::Maybe(&clients)).await;
        let (egress, url) = (egress(open()), format!("https://localhost:{port}/"));
        for round in 1..=2 {
            for (client, shown) in
                [(one.client(), one.fingerprint()), (two.client(), two.fingerprint()), (None, "none".into())]
            {
                let identity = TlsIdentity { client, ..servers.trusted() };
                match post_as(&egress, &url, identity).await {
                    Outcome::Answered { status: 200, body_head, .. } => {
                        assert!(body_head.ends_with(&shown), "{body_head}")
                    }
                    other => panic!("{other:?}"),
                }
                put_back().await;
            }
            assert_eq!(connections.load(Ordering::SeqCst), 3, "each its own, and used again: round {round}");
        }
    }
}

#[tokio::test]
async fn invalid_identity_is_unsendable() {
    let identity = TlsIdentity { ca_pem: Some("nothing".into()), client: None };
    let outcome = post_as(&egress(open()), "https://localhost:1/", identity).await;
    assert_failed(&outcome, ErrorClass::Unsendable, "`tls`: it contains no certificate");
}

#[tokio::test]
async fn receiver_without_tls_fails_or_times_out() {
    let url = answering("").await.replace("http:", "https:");
    let silent = egress(Options { connect_ms_max: 200, ..open() });
    assert_failed(&post(&silent, &url).await, ErrorClass::Timeout, "no connection");
    let port = receiver(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad\r\n\r\n").await;
        let _ = stream.read_buf(&mut Vec::new()).await;
    })
    .await;
    assert_failed(&post(&egress(open()), &format!("https://127.0.0.1:{port}/")).await, ErrorClass::Tls, "");
}
