//! A listener: accepts connections, and on shutdown lets requests in progress finish.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::address::Address;
use super::connection::ConnectionContext;
use super::interface::{self, Interface};
use super::settings::Listen;
use super::tls::{self, Tls};

/// Time limit (ms) for requests in progress when the host stops.
const FINISH_MS_MAX: u64 = 10_000;
/// How long to wait for a free connection slot before idle connections are closed.
const SLOT_WAIT: Duration = Duration::from_millis(50);

/// A listener could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use or does not belong to this machine.
    #[error("cannot listen on {address}: {source}; choose another with `{table}.address`")]
    Bind {
        /// The configured address.
        address: Address,
        /// The configuration table of the listener.
        table: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// Certificate, key or client authorities cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// A bound listener that does not accept connections yet.
pub struct Server {
    listener: TcpListener,
    /// The configuration table of the listener.
    table: &'static str,
    tls: Option<Tls>,
    serves: Vec<Interface>,
    settings: Listen,
}

impl Server {
    /// Binds all configured listeners, the main one first, and reads their certificates.
    pub async fn bind_all(settings: &Listen) -> Result<Vec<Self>, Error> {
        let mut servers = Vec::new();
        for (table, listener) in settings.listeners() {
            let tls = tls::read(&listener)?.map(Tls::new);
            let address = listener.address;
            // A name may have several addresses: the first one that can be bound is used.
            let listener = TcpListener::bind((address.host(), address.port())).await;
            let listener = listener.map_err(|source| Error::Bind { address, table, source })?;
            let serves = interface::served(settings, table);
            servers.push(Self { listener, table, tls, serves, settings: settings.clone() });
        }
        Ok(servers)
    }

    /// The bound address. If port 0 was configured, it contains the actual port.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The configuration table of the listener, such as `listen.operator`.
    pub fn table(&self) -> &'static str {
        self.table
    }

    /// Whether it serves the routes of that interface.
    pub fn serves(&self, interface: Interface) -> bool {
        self.serves.contains(&interface)
    }

    /// Its TLS configuration. `None` if it does not use TLS.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The interfaces that it serves.
    pub fn interfaces(&self) -> &[Interface] {
        &self.serves
    }

    /// Accepts connections until `stop`, then lets requests in progress finish. `app` has the routes of
    /// [`interfaces`](Self::interfaces).
    pub async fn serve(self, app: axum::Router, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.settings.connections_max));
        let context = ConnectionContext::new(app, &self.settings, stop.clone());
        loop {
            let (stream, address) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Most likely out of file descriptors: accepting again at once would spin.
                        warn!(%error, "connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let slot = tokio::select! {
                () = stop.cancelled() => break,
                slot = free_slot(&slots, &context) => slot,
            };
            let (context, tls) = (context.clone(), self.tls.as_ref().map(Tls::acceptor));
            tokio::spawn(async move {
                context.serve(stream, address, tls).await;
                drop(slot);
            });
        }
        drop(self.listener);
        let limit = Duration::from_millis(FINISH_MS_MAX);
        let all = u32::try_from(self.settings.connections_max).unwrap_or(u32::MAX);
        if tokio::time::timeout(limit, slots.acquire_many(all)).await.is_err() {
            warn!(limit_ms = FINISH_MS_MAX, "shutdown: some requests did not finish in time");
        }
    }
}

/// Waits for a free connection slot. If there is none, idle connections are closed; if all connections are in use, it
/// keeps waiting.
async fn free_slot(slots: &Arc<Semaphore>, context: &ConnectionContext) -> OwnedSemaphorePermit {
    loop {
        let slot = slots.clone().acquire_owned();
        if let Ok(slot) = tokio::time::timeout(SLOT_WAIT, slot).await {
            return slot.expect("the semaphore is never closed");
        }
        context.free_slots();
    }
}
