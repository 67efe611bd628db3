//! Entries for the settlement log, collected while a batch runs and written at its end as one row per tenant.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use setgate_domain::delivery::{DeliverySeq, State};
use setgate_domain::id::TenantId;

use crate::Error;
use crate::schema::sql_types::{Json, params};

/// A state change of a delivery, as stored in the log.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Entry {
    #[serde(rename = "d")]
    pub(crate) delivery: DeliverySeq,
    #[serde(rename = "s")]
    pub(crate) state: State,
    /// Number of the attempt that led to it.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u32>,
    /// Milliseconds since the epoch.
    #[serde(rename = "t")]
    pub(crate) at_ms: i64,
}

/// Entries of a batch by tenant.
#[derive(Default)]
pub(crate) struct Log(BTreeMap<TenantId, Vec<Entry>>);

impl Log {
    pub(crate) fn note(&mut self, tenant: &TenantId, entry: Entry) {
        self.0.entry(tenant.clone()).or_default().push(entry);
    }

    /// Appends the entries of a later request of the batch.
    pub(crate) fn merge(&mut self, other: Self) {
        for (tenant, entries) in other.0 {
            self.0.entry(tenant).or_default().extend(entries);
        }
    }

    pub(crate) fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.0.keys()
    }

    /// Writes the rows. Returns the number of the batch, or `None` if it has no entries.
    pub(crate) fn store(&self, conn: &Connection) -> Result<Option<i64>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        // Without `RETURNING`, which makes SQLite materialise the row in a temporary table and is slower than a second
        // query.
        conn.prepare_cached("UPDATE mark SET value = value + 1 WHERE name = 'settled'")?.execute([])?;
        let batch: i64 =
            conn.prepare_cached("SELECT value FROM mark WHERE name = 'settled'")?.query_row([], |row| row.get(0))?;
        for (tenant, entries) in &self.0 {
            let at_ms = entries.iter().map(|entry| entry.at_ms).max().unwrap_or(0);
            conn.prepare_cached("INSERT INTO settled (batch, tenant, at, doc) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![batch, tenant, at_ms, Json(entries)])?;
        }
        Ok(Some(batch))
    }
}
