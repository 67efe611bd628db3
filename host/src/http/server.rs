//! The listener: accepts connections, speaks TLS where it is configured, and on shutdown lets requests finish.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Site;
use super::router::router;
use crate::config;

/// Milliseconds that requests in progress have to finish when the host stops.
const FINISH_MS_MAX: u64 = 10_000;
/// Streams of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 128;

/// Why the listener could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not this machine's.
    #[error("cannot listen on {address}: {source}; choose another with `listen.address`")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("TLS cannot be started with `{path}`: {why}")]
    Tls {
        /// The file.
        path: String,
        /// What was wrong with it.
        why: String,
    },
}

/// A bound listener, not yet accepting.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    settings: config::Listen,
}

impl Server {
    /// Binds the address and reads the certificate.
    pub async fn bind(settings: config::Listen) -> Result<Self, Error> {
        let tls = match (&settings.tls_certificate, &settings.tls_key) {
            (Some(certificate), Some(key)) => Some(acceptor(certificate, key)?),
            _ => None,
        };
        let address = settings.address;
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })?;
        Ok(Self { listener, tls, settings })
    }

    /// The address it is bound to: with the port taken, where port 0 was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Accepts until `stop`, then lets requests in progress finish.
    pub async fn run(self, site: Site, stop: CancellationToken) {
        let app = router(site);
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(self.settings.connections_max));
        let head_limit = Duration::from_millis(self.settings.head_ms_max);
        loop {
            let slot = tokio::select! {
                () = stop.cancelled() => break,
                slot = slots.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
            };
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of file descriptors, most likely: accepting again at once would spin.
                        warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let service = TowerToHyperService::new(app.clone());
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(head_limit);
            builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
            let watcher = graceful.watcher();
            let tls = self.tls.clone();
            tokio::spawn(async move {
                let _slot = slot;
                let served = match tls {
                    None => watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()).await,
                    Some(tls) => {
                        let Some(stream) = handshake(&tls, stream, head_limit).await else { return };
                        watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()).await
                    }
                };
                if let Err(error) = served {
                    debug!(%error, "a connection ended badly");
                }
            });
        }
        drop(self.listener);
        let limit = Duration::from_millis(FINISH_MS_MAX);
        if tokio::time::timeout(limit, graceful.shutdown()).await.is_err() {
            warn!(limit_ms = FINISH_MS_MAX, "some requests did not finish in time");
        }
    }
}

async fn handshake(
    tls: &TlsAcceptor,
    stream: TcpStream,
    limit: Duration,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    match tokio::time::timeout(limit, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            debug!("a TLS handshake took too long");
            None
        }
    }
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Error> {
    let in_file = |path: &Path, why: String| Error::Tls { path: path.display().to_string(), why };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| in_file(certificate, format!("no certificate chain in PEM: {error}")))?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(key, format!("no private key in PEM: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| in_file(certificate, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| in_file(certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
