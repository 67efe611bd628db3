//! Removal of a tenant: its documents at once, then its rows in chunks.

use setgate_domain::event::EventSeq;
use setgate_domain::id::TenantId;

use crate::Error;
use crate::commit::queue::Batch;
use crate::registry::{Registry, WriteContext};
use crate::schema::sql_types::{ReadColumn, params};
use crate::state::snapshot::Name;
use crate::store::Store;
use crate::upkeep::retention::{CHUNK_ROWS, delete_event};

impl Registry {
    /// Removes a tenant: its documents and keys at once, then its events and deliveries in chunks. Returns when
    /// everything is deleted. If it is interrupted, [`Upkeep::retain`](crate::Upkeep::retain) finishes the removal.
    pub async fn remove_tenant(&self, tenant: &TenantId, context: impl Into<WriteContext>) -> Result<bool, Error> {
        let removed = self.remove(Name::Tenant(tenant.clone()), context).await?;
        if removed {
            purge_all(&self.0, tenant).await?;
        }
        Ok(removed)
    }
}

/// Deletes the remaining rows of a removed tenant.
pub(crate) async fn purge_all(store: &Store, tenant: &TenantId) -> Result<(), Error> {
    loop {
        let tenant = tenant.clone();
        if !store.queue().write(move |batch| purge(batch, &tenant)).await? {
            return Ok(());
        }
    }
}

/// Deletes a chunk of a removed tenant. Returns false when nothing is left, which frees its name.
fn purge(batch: &mut Batch<'_>, tenant: &TenantId) -> Result<bool, Error> {
    let conn = batch.conn;
    if !conn.prepare_cached("SELECT 1 FROM purge WHERE tenant = ?1")?.exists(params![tenant])? {
        return Ok(false);
    }
    let events: Vec<EventSeq> = conn
        .prepare_cached("SELECT seq FROM event WHERE tenant = ?1 LIMIT ?2")?
        .query_map(params![tenant, CHUNK_ROWS as i64], |row| row.column(0))?
        .collect::<Result<_, _>>()?;
    let mut rows = 0;
    for event in &events {
        if rows >= CHUNK_ROWS {
            break;
        }
        let deleted = delete_event(batch, *event, CHUNK_ROWS - rows)?;
        rows += (deleted.events + deleted.deliveries) as usize;
    }
    if !events.is_empty() {
        return Ok(true);
    }
    if conn
        .prepare_cached(
            "DELETE FROM statistic WHERE (tenant, subscription, bucket_ms, at) IN (
                 SELECT tenant, subscription, bucket_ms, at FROM statistic WHERE tenant = ?1 LIMIT ?2)",
        )?
        .execute(params![tenant, CHUNK_ROWS as i64])?
        > 0
    {
        return Ok(true);
    }
    conn.execute("DELETE FROM replay WHERE tenant = ?1", params![tenant])?;
    conn.execute("DELETE FROM purge WHERE tenant = ?1", params![tenant])?;
    Ok(false)
}
