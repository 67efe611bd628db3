//! Figures about the ledger, for admission, health and metrics.

use std::fs;
use std::sync::atomic::Ordering;

use setgate_domain::event::EventSeq;
use setgate_domain::id::TenantId;

use crate::Error;
use crate::schema;
use crate::schema::sql_types::ReadColumn;
use crate::state::disk::Cause;
use crate::state::space::Shortage;
use crate::upkeep::Usage;

/// Point-in-time figures for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Whether the writer accepts requests.
    pub open: bool,
    /// Cause of the last failed write, or `None` if the last batch was written. A failing disk is probed once a second.
    pub failing: Option<Cause>,
    /// Requests in the writer's queue.
    pub queue_depth: usize,
    /// Bytes of events in the writer's queue.
    pub queue_bytes: usize,
    /// Size of the database file, in bytes.
    pub file_bytes: u64,
    /// Size of the WAL, in bytes.
    pub wal_bytes: u64,
    /// Memory used by the dedupe index in bytes: about 1.3 per event of the ledger.
    pub dedupe_bytes: u64,
    /// Last event of the journal.
    pub last: EventSeq,
    /// Last event fanned out.
    pub cursor: EventSeq,
    /// Batches committed since the ledger was opened. Each costs one fsync.
    pub commits: u64,
}

impl Usage {
    /// `data.ledger_bytes_max` (bytes). 0: unlimited.
    pub fn ledger_bytes_max(&self) -> u64 {
        self.0.shared().space.ledger_max()
    }

    /// Current sizes and depths. Stats two files; never waits for the writer.
    pub fn stats(&self) -> Stats {
        let options = self.0.options();
        let size = |name: &str| fs::metadata(options.path.join(name)).map_or(0, |meta| meta.len());
        let fanout_cursor = *self.0.shared().fanout_cursor.borrow();
        Stats {
            open: self.0.queue().is_open(),
            failing: self.0.shared().disk.failing(),
            queue_depth: self.0.queue().depth(),
            queue_bytes: self.0.shared().queue_bytes.load(Ordering::Relaxed),
            file_bytes: size(schema::FILE),
            wal_bytes: size(&format!("{}-wal", schema::FILE)),
            dedupe_bytes: self.0.shared().dedupe_bytes.load(Ordering::Relaxed) as u64,
            last: fanout_cursor.last(),
            cursor: fanout_cursor.position(),
            commits: self.0.shared().commits.load(Ordering::Relaxed) as u64,
        }
    }

    /// Number of due, held and dead deliveries per tenant.
    pub async fn deliveries_by_state(&self) -> Result<Vec<(TenantId, [i64; 3])>, Error> {
        self.0
            .readers()
            .read(move |conn| {
                let sql = "SELECT tenant, sum(due), sum(held), sum(dead) FROM tally GROUP BY tenant";
                let mut statement = conn.prepare_cached(sql)?;
                let rows =
                    statement.query_map([], |row| Ok((row.column(0)?, [row.get(1)?, row.get(2)?, row.get(3)?])))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Number of deliveries of the tenant that are due or held. Exact, from memory; never blocks.
    pub fn backlog(&self, tenant: &TenantId) -> u64 {
        self.0.shared().backlog(tenant)
    }

    /// Bytes stored by a tenant: events with their deliveries and history, plans and blobs. Never blocks.
    pub fn stored(&self, tenant: &TenantId) -> u64 {
        self.0.shared().stored.of(tenant)
    }

    /// Bytes stored by each tenant that has any.
    pub fn stored_by_tenant(&self) -> Vec<(TenantId, u64)> {
        self.0.shared().stored.all()
    }

    /// Reason why a tenant may not add data at the moment, or `None` if it may. While space is short, tenants above an
    /// equal share are refused first. Never blocks.
    pub fn shortage_of(&self, tenant: &TenantId) -> Option<Shortage> {
        let shortage = self.shortage();
        shortage.or_else(|| self.0.shared().space.is_tight().then(|| self.0.shared().over_share(tenant)).flatten())
    }

    /// Reason why nothing may be added at the moment (events and uploads in particular), or `None` if there is room.
    /// Refreshed once a second; never blocks.
    pub fn shortage(&self) -> Option<Shortage> {
        self.0.shared().space.shortage()
    }

    /// Whether the last batch could be written. Never blocks.
    pub fn is_writable(&self) -> bool {
        self.0.shared().disk.failing().is_none()
    }
}
