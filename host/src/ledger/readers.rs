//! Connections that only read: a few for the data plane and a few for history, so that a person's search cannot
//! hold up deliveries. Each read is one short transaction, since a long one would keep the WAL from starting anew.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::{Error, schema};

/// A pool of connections; a read waits for a free one.
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    size: u32,
}

impl Readers {
    pub(super) fn open(folder: &Path, size: u32) -> Result<Self, Error> {
        let size = size.max(1);
        let idle = (0..size).map(|_| schema::open_reader(folder)).collect::<Result<_, _>>()?;
        Ok(Self { idle: Arc::new(Mutex::new(idle)), permits: Arc::new(Semaphore::new(size as usize)), size })
    }

    /// Runs `read` on a blocking thread, within one transaction: it sees one state of the ledger.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Error::Closed)?;
        let idle = Arc::clone(&self.idle);
        tokio::task::spawn_blocking(move || {
            let conn = lock(&idle).pop().ok_or(Error::Closed)?;
            // Back into the pool even if `read` panics, and before the permit is free again.
            let lease = Lease { conn: Some(conn), idle, _permit: permit };
            let Some(conn) = &lease.conn else { return Err(Error::Closed) };
            let transaction = conn.unchecked_transaction()?;
            let result = read(conn);
            transaction.finish()?;
            result
        })
        .await
        .map_err(|_| Error::Closed)?
    }

    /// Waits for the reads under way and closes the connections.
    pub(super) async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(self.size).await {
            self.permits.close();
            all.forget();
        }
        lock(&self.idle).clear();
    }
}

struct Lease {
    conn: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.idle).extend(self.conn.take());
    }
}

fn lock(idle: &Mutex<Vec<Connection>>) -> std::sync::MutexGuard<'_, Vec<Connection>> {
    // A list of connections cannot be left half changed.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
