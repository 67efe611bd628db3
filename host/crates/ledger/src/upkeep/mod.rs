//! Retention, backup and the identity of a ledger.

pub(crate) mod backup;
pub(crate) mod expiry;
pub(crate) mod identity;
pub(crate) mod purge;
pub(crate) mod retention;
pub(crate) mod uptime;
pub(crate) mod usage;

use std::sync::Arc;

use rusqlite::OptionalExtension;
use setgate_domain::time::Timestamp;

use crate::audit;
use crate::schema::sql_types::params;
use crate::store::Store;
use crate::{Error, Options};

/// Retention, checks, limits, and small values of the host.
#[derive(Clone)]
pub struct Upkeep(pub(crate) Arc<Store>);

/// Figures about the ledger from memory: sizes, shares of tenants, and whether it can take writes.
#[derive(Clone)]
pub struct Usage(pub(crate) Arc<Store>);

impl Upkeep {
    /// Reads a value of the `meta` table.
    pub async fn meta_get(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let name = name.to_owned();
        self.0
            .readers()
            .read(move |conn| {
                Ok(conn
                    .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
                    .query_row([name], |row| row.get(0))
                    .optional()?)
            })
            .await
    }

    /// Stores a value in the `meta` table, replacing the previous one.
    pub async fn meta_put(&self, name: &str, value: &[u8]) -> Result<(), Error> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.0
            .queue()
            .write(move |batch| {
                batch
                    .conn
                    .execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)", params![name, value])?;
                Ok(())
            })
            .await
    }

    /// Applies new limits from the next round of retention and the next disk check on: `retention_ms`,
    /// `retention_min_ms`, `statistics_retention_ms`, `downtime_ms_min`, `ledger_bytes_max`,
    /// `disk_free_bytes_min` and `quota`. All other options are fixed when the ledger is opened.
    pub fn apply_limits(&self, other: &Options) {
        let kept = Options {
            retention_ms: other.retention_ms,
            retention_min_ms: other.retention_min_ms,
            statistics_retention_ms: other.statistics_retention_ms,
            downtime_ms_min: other.downtime_ms_min,
            ledger_bytes_max: other.ledger_bytes_max,
            disk_free_bytes_min: other.disk_free_bytes_min,
            quota: other.quota.clone(),
            ..Options::clone(&self.0.options())
        };
        self.0.shared().space.set_limits(&kept);
        self.0.options.store(Arc::new(kept));
    }

    /// Waits until [`Upkeep::retain`](crate::Upkeep::retain) should run early because the disk or the ledger is filling up.
    pub async fn space_pressure(&self) {
        self.0.shared().space.pressure_started.notified().await;
    }

    /// Deletes entries older than `before` in chunks, from the beginning up to the first younger one. Returns their
    /// number.
    pub async fn retain_audit(&self, before: Timestamp) -> Result<u64, Error> {
        let mut removed = 0;
        loop {
            let chunk = self.0.queue().write(move |batch| audit::retain(batch.conn, before)).await?;
            if chunk == 0 {
                return Ok(removed);
            }
            removed += chunk;
        }
    }
}
