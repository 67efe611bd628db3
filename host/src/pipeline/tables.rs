//! The lookup tables that a plan has pinned: read once, shared, and limited in memory.
//!
//! A tenant may upload many large versions of a table, and each delivery needs the version pinned in its plan. The
//! memory used by one tenant's running chains is therefore limited. Further chains of that tenant wait, without
//! delaying other tenants.

use std::collections::HashMap;
use std::sync::Arc;

use setgate_base::fair::TenantSemaphores;
use setgate_domain::filter::Plan;
use setgate_domain::id::{Digest, TableName, TenantId};
use setgate_domain::table::{self, Rows};
use setgate_ledger::Blobs;
use tokio::sync::OwnedSemaphorePermit;

/// Bytes of parsed lookup tables cached in memory.
const TABLES_BYTES_MAX: u64 = 64 << 20;
/// Bytes of lookup tables that the running filter chains of one tenant may use; further chains are queued.
const TABLES_IN_USE_BYTES_MAX: u64 = 64 << 20;
/// Number of tables with a cached size.
const SIZES_MAX: u64 = 10_000;
/// Bytes represented by one permit.
const PERMIT_BYTES: u64 = 1 << 10;

/// The tables of one plan, in the form that the sandbox reads.
pub(super) struct PinnedTables {
    rows: HashMap<Box<str>, Arc<Rows>>,
    _in_use: Option<OwnedSemaphorePermit>,
}

impl setgate_sandbox::Tables for PinnedTables {
    fn get(&self, table: &str, key: &str) -> Option<Option<Arc<str>>> {
        Some(self.rows.get(table)?.get(key).cloned())
    }
}

/// Cache of parsed tables by digest, so that a table is parsed once instead of once per event.
pub(super) struct TableCache {
    blobs: Blobs,
    parsed: moka::future::Cache<Digest, Arc<Rows>>,
    sizes: moka::future::Cache<Digest, u64>,
    in_use: TenantSemaphores,
}

impl TableCache {
    pub(super) fn new(blobs: Blobs) -> Self {
        let weight = |_: &_, rows: &Arc<Rows>| {
            let bytes: usize = rows.iter().map(|(key, value)| key.len() + value.len() + 64).sum();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let permits = usize::try_from(TABLES_IN_USE_BYTES_MAX / PERMIT_BYTES).unwrap_or(usize::MAX);
        Self {
            blobs,
            parsed: moka::future::Cache::builder().max_capacity(TABLES_BYTES_MAX).weigher(weight).build(),
            sizes: moka::future::Cache::new(SIZES_MAX),
            in_use: TenantSemaphores::new(permits.clamp(1, tokio::sync::Semaphore::MAX_PERMITS)),
        }
    }

    /// Loads the tables that a plan has pinned. Waits while the tenant's other chains use up the tenant's limit.
    pub(super) async fn of_plan(&self, plan: &Plan, tenant: &TenantId) -> Result<Arc<PinnedTables>, String> {
        if plan.tables.is_empty() {
            return Ok(Arc::new(PinnedTables { rows: HashMap::new(), _in_use: None }));
        }
        // A large future that few chains need. Without the box, every delivery's future would contain it.
        Box::pin(self.read_tables(plan, tenant)).await
    }

    async fn read_tables(&self, plan: &Plan, tenant: &TenantId) -> Result<Arc<PinnedTables>, String> {
        let mut bytes = 0_u64;
        for (name, digest) in &plan.tables {
            bytes = bytes.saturating_add(self.table_bytes(tenant, name, digest).await?);
        }
        // If the tables alone exceed the limit, one chain at a time may use them.
        let permits = bytes.div_ceil(PERMIT_BYTES).min(self.in_use.permits() as u64);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let held = self.in_use.get(tenant).acquire_many_owned(permits).await.map_err(|e| e.to_string())?;
        let mut rows = HashMap::with_capacity(plan.tables.len());
        for (name, digest) in &plan.tables {
            rows.insert(name.as_str().into(), self.table(tenant, name, digest).await?);
        }
        Ok(Arc::new(PinnedTables { rows, _in_use: Some(held) }))
    }

    async fn table_bytes(&self, tenant: &TenantId, name: &TableName, digest: &Digest) -> Result<u64, String> {
        let reading = async {
            let bytes = self.blobs.size(tenant, digest).await.map_err(|e| e.to_string())?;
            bytes.ok_or_else(|| not_there(name, digest))
        };
        self.sizes.try_get_with(*digest, reading).await.map_err(|error: Arc<String>| error.as_ref().clone())
    }

    async fn table(&self, tenant: &TenantId, name: &TableName, digest: &Digest) -> Result<Arc<Rows>, String> {
        let reading = async {
            let bytes = self.blobs.get(tenant, digest).await.map_err(|e| e.to_string())?;
            let bytes = bytes.ok_or_else(|| not_there(name, digest))?;
            // Parsing megabytes of JSON would block the async worker thread.
            let rows = tokio::task::spawn_blocking(move || table::parse(&bytes)).await;
            rows.map_err(|e| e.to_string())?.map(Arc::new)
        };
        self.parsed.try_get_with(*digest, reading).await.map_err(|error: Arc<String>| error.as_ref().clone())
    }
}

fn not_there(name: &TableName, digest: &Digest) -> String {
    format!("the table `{name}` ({digest}) is not in the ledger")
}
