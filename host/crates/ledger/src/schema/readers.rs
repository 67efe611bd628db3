//! Read-only connections: a few for the data plane and a few for history, so that a person's search cannot delay
//! deliveries. Each read is one short transaction, since a long one keeps the WAL from being reset.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use setgate_base::fair::{FairLimits, FairSemaphore};
use setgate_domain::id::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;
use crate::schema;

/// A pool of connections. A read waits for an idle one. Clones share the pool.
#[derive(Clone)]
pub(crate) struct Readers {
    folder: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    size: u32,
    /// Fair scheduling between tenants: a tenant's hundred searches queue behind each other, not in front of every
    /// other tenant's next one.
    fair_share: FairSemaphore,
}

/// The pool, on behalf of one tenant.
pub(crate) struct ReadersOf<'a> {
    readers: &'a Readers,
    tenant: TenantId,
}

impl Readers {
    pub(crate) fn open(folder: &Path, size: u32) -> Result<Self, Error> {
        let size = size.max(1);
        let idle = (0..size).map(|_| schema::open_reader(folder)).collect::<Result<_, _>>()?;
        let (idle, permits) = (Arc::new(Mutex::new(idle)), Arc::new(Semaphore::new(size as usize)));
        let fair_share = FairSemaphore::new(FairLimits {
            permits: size as usize,
            // One connection is left to other tenants if there are several.
            per_tenant_max: (size as usize - 1).max(1),
            reserve_for_idle_tenants: false,
            // The callers limit the number of requests they accept.
            queued_per_tenant_max: usize::MAX,
            estimated_cost: 1,
        });
        Ok(Self { folder: folder.to_owned(), idle, permits, size, fair_share })
    }

    /// The pool on behalf of a tenant, limited to its fair share.
    pub(crate) fn of(&self, tenant: &TenantId) -> ReadersOf<'_> {
        ReadersOf { readers: self, tenant: tenant.clone() }
    }

    /// Runs `read` on a blocking thread within one transaction, so that it sees a consistent snapshot.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Error::Closed)?;
        let idle = Arc::clone(&self.idle);
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || {
            let waiting = lock(&idle).pop();
            let conn = match waiting {
                Some(conn) => conn,
                // The connections have been closed since (`close_connections`).
                None => schema::open_reader(&folder)?,
            };
            // Returns the connection even if `read` panics, and before the permit is released.
            let lease = Lease { conn: Some(conn), idle, _permit: permit };
            let Some(conn) = &lease.conn else { return Err(Error::Closed) };
            conn.prepare_cached("BEGIN DEFERRED")?.execute([])?;
            let result = read(conn);
            // Rolled back and not committed: on a damaged file a commit fails, even if the rows read are valid.
            if !conn.is_autocommit() {
                conn.prepare_cached("ROLLBACK")?.execute([])?;
            }
            result
        })
        .await
        .map_err(|_| Error::Closed)?
    }

    /// Waits for running reads and closes all connections; for a thread without a runtime. New reads wait until the
    /// returned permit is dropped, then open new connections. `None` if the pool is closed.
    pub(crate) fn close_connections(&self) -> Option<OwnedSemaphorePermit> {
        let all = Arc::clone(&self.permits).acquire_many_owned(self.size);
        let all = tokio::runtime::Builder::new_current_thread().build().ok()?.block_on(all).ok()?;
        lock(&self.idle).clear();
        Some(all)
    }

    /// Waits for running reads, then closes the pool and its connections.
    pub(crate) async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(self.size).await {
            self.permits.close();
            all.forget();
        }
        lock(&self.idle).clear();
    }
}

impl ReadersOf<'_> {
    /// Like [`Readers::read`], when it is the tenant's turn.
    pub(crate) async fn read<T: Send + 'static>(
        self,
        read: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let place = self.readers.fair_share.acquire(&self.tenant).await.map_err(|_| Error::Closed)?;
        self.readers
            .read(move |conn| {
                // Held by the read itself, which runs to its end even if the caller has been cancelled.
                let _place = place;
                read(conn)
            })
            .await
    }
}

struct Lease {
    conn: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        // The transaction may still be open after a panic or an engine error. A connection that cannot roll back is
        // dropped.
        if conn.is_autocommit() || conn.execute_batch("ROLLBACK").is_ok() {
            lock(&self.idle).push(conn);
        }
    }
}

fn lock(idle: &Mutex<Vec<Connection>>) -> std::sync::MutexGuard<'_, Vec<Connection>> {
    // A list of connections cannot be left half updated.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::BoxFuture;
    use futures_util::{FutureExt as _, TryFutureExt as _};

    use super::*;
    use crate::DeliveryQuery;
    use crate::Ledger;
    use crate::options::READERS_MAX;
    use crate::tests::{open, subscription};
    use setgate_domain::audit::AuditQuery;
    use setgate_domain::delivery::DeliverySeq;
    use setgate_domain::id::Digest;
    use setgate_domain::time::Timestamp;

    const DIGEST: Digest = Digest([7; 32]);
    const ROW: DeliverySeq = DeliverySeq(1);

    type Reads<'a> = Vec<(&'static str, BoxFuture<'a, Result<(), Error>>)>;

    /// Every read of the data plane for a tenant.
    fn data_plane<'a>(ledger: &'a Ledger, tenant: &'a TenantId) -> Reads<'a> {
        let due = ledger.deliveries.due(tenant, subscription(1), Timestamp::from_millis(0), None, 9);
        vec![
            ("due", due.map_ok(drop).boxed()),
            ("load", ledger.deliveries.load(tenant, ROW).map_ok(drop).boxed()),
            ("plan", ledger.plans.get(tenant, &DIGEST).map_ok(drop).boxed()),
            ("blob", ledger.blobs.get(tenant, &DIGEST).map_ok(drop).boxed()),
            ("blob_bytes", ledger.blobs.size(tenant, &DIGEST).map_ok(drop).boxed()),
        ]
    }

    /// Reads of history for a tenant.
    fn history<'a>(ledger: &'a Ledger, tenant: &'a TenantId) -> Reads<'a> {
        let audit = ledger.history.audit(Some(tenant), true, AuditQuery::default(), None, 9);
        vec![
            ("deliveries", ledger.history.deliveries(tenant, DeliveryQuery::default(), None, 9).map_ok(drop).boxed()),
            ("attempts", ledger.history.attempts(tenant, ROW).map_ok(drop).boxed()),
            ("audit", audit.map_ok(drop).boxed()),
            ("filter_versions_in_use", ledger.plans.filter_versions_in_use(tenant).map_ok(drop).boxed()),
            ("table_versions_in_use", ledger.plans.table_versions_in_use(tenant).map_ok(drop).boxed()),
            ("check_blob", ledger.blobs.check(tenant, &DIGEST).map_ok(drop).boxed()),
            ("blob_part", ledger.blobs.part(tenant, &DIGEST, 0).map_ok(drop).boxed()),
        ]
    }

    /// A tenant with as many long reads as there are connections leaves one to others, and its own next reads wait.
    async fn one_is_left(readers: &Readers, ledger: &Ledger, reads: for<'a> fn(&'a Ledger, &'a TenantId) -> Reads<'a>) {
        let (busy, calm): (TenantId, TenantId) = ("busy".parse().unwrap(), "calm".parse().unwrap());
        let (release, released) = tokio::sync::watch::channel(());
        let long: Vec<_> = (0..readers.size)
            .map(|_| {
                let (readers, busy, mut released) = (readers.clone(), busy.clone(), released.clone());
                let wait =
                    move |_: &Connection| Ok(tokio::runtime::Handle::current().block_on(released.changed()).is_ok());
                tokio::spawn(async move { readers.of(&busy).read(wait).await })
            })
            .collect();
        while !readers.fair_share.has_waiters() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..20 {
            for (name, read) in reads(ledger, &calm) {
                read.await.unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            // A read of the host itself.
            readers.read(|_| Ok(())).await.unwrap();
        }
        for (name, mut read) in reads(ledger, &busy) {
            let early = tokio::time::timeout(Duration::from_millis(20), &mut read).await;
            assert!(early.is_err(), "`{name}` does not wait for the turn of its tenant");
        }
        assert!(long.iter().all(|read| !read.is_finished()));
        release.send(()).unwrap();
        for read in long {
            assert!(read.await.unwrap().unwrap());
        }
        for (name, read) in reads(ledger, &busy) {
            read.await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn data_plane_reads_leave_a_connection_to_other_tenants() {
        let (_folder, ledger) = open();
        assert_eq!(ledger.store.readers().size, READERS_MAX);
        one_is_left(ledger.store.readers(), &ledger, data_plane).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn history_reads_leave_a_connection_to_other_tenants() {
        let (_folder, ledger) = open();
        one_is_left(ledger.store.history_readers(), &ledger, history).await;
    }
}
