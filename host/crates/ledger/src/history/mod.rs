//! Queries about events, deliveries, attempts, statistics and the audit log.

pub(crate) mod queries;
pub(crate) mod settlement_log;
pub(crate) mod statistics;

use std::sync::Arc;

use rusqlite::Connection;
use setgate_domain::audit::{AuditEntry, AuditQuery, AuditRecord};
use setgate_domain::id::TenantId;

use crate::store::Store;
use crate::{Error, audit};

/// Queries for people: events, deliveries, attempts, statistics, settlements and the audit log.
#[derive(Clone)]
pub struct History(pub(crate) Arc<Store>);

impl History {
    /// Records an action that changes no document of the registry.
    pub async fn record_audit(&self, entry: AuditEntry) -> Result<(), Error> {
        self.0.queue().write(move |batch| audit::record(batch, &entry)).await
    }

    /// A page of the log, newest first, for all tenants or for one. With `since_creation`, rows from before the tenant's
    /// creation are left out: they belong to an earlier tenant of the same name. `before` is the position returned with
    /// the previous page; the second value is the next position. `limit` is capped at [`crate::HISTORY_LIMIT_MAX`]; a page
    /// also ends after [`crate::HISTORY_SCAN_ROWS_MAX`] rows.
    pub async fn audit(
        &self,
        tenant: Option<&TenantId>,
        since_creation: bool,
        query: AuditQuery,
        before: Option<i64>,
        limit: usize,
    ) -> Result<(Vec<AuditRecord>, Option<i64>), Error> {
        let readers = self.0.history_readers();
        let of = tenant.cloned();
        let read = move |conn: &Connection| audit::page(conn, of.as_ref(), since_creation, &query, before, limit);
        match tenant {
            Some(tenant) => readers.of(tenant).read(read).await,
            None => readers.read(read).await,
        }
    }
}
