//! Look-up tables of a tenant: uploaded whole as JSON lines, swapped at once.

use bytes::Bytes;
use serde::Serialize;

use super::{Control, Error, Expected, over, room};
use crate::crypto;
use crate::domain::id::{Digest, TableName, TenantId};
use crate::domain::table;
use crate::domain::time::Timestamp;

/// Bytes of one uploaded table at the most.
pub const TABLE_BYTES_MAX: usize = 16 << 20;

/// A table as it is shown.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "as in `Table`")]
pub struct TableView {
    pub name: TableName,
    pub digest: Digest,
    pub rows: u64,
    pub uploaded_at: Timestamp,
}

impl Control {
    /// Takes in a table; new deliveries see it, those on their way keep the one they were created with.
    pub async fn put_table(&self, tenant: &TenantId, name: TableName, rows: Bytes) -> Result<TableView, Error> {
        let view = self.tenant(tenant)?;
        if !view.tables.contains_key(&name) {
            room(view.tables.len(), self.quota_of(&view).tables_max, "tables_max")?;
        }
        let parsed = table::parse(&rows).map_err(|why| Error::invalid("body", why))?;
        let table = table_entry(tenant, name, &rows, parsed.len(), self.clock.now());
        self.ledger.put_blob(rows).await?;
        self.ledger.put_table(table.clone(), over(view.tables.get(&table.name))).await?;
        Ok(show(&table))
    }

    /// A tenant's tables, by name.
    pub fn list_tables(&self, tenant: &TenantId) -> Result<Vec<TableView>, Error> {
        Ok(self.tenant(tenant)?.tables.values().map(|table| show(&table.value)).collect())
    }

    /// Removes a table. Deliveries on their way keep it.
    pub async fn remove_table(&self, tenant: &TenantId, name: &TableName) -> Result<(), Error> {
        if !self.tenant(tenant)?.tables.contains_key(name) {
            return Err(Error::NotFound(format!("table `{name}`")));
        }
        self.ledger.remove_table(tenant, name, Expected::Any).await?;
        Ok(())
    }
}

fn table_entry(
    tenant: &TenantId,
    name: TableName,
    rows: &[u8],
    count: usize,
    now: Timestamp,
) -> crate::domain::filter::Table {
    crate::domain::filter::Table {
        tenant: tenant.clone(),
        name,
        digest: Digest(crypto::sha256(rows)),
        rows: count as u64,
        uploaded_at: now,
    }
}

fn show(table: &crate::domain::filter::Table) -> TableView {
    TableView { name: table.name.clone(), digest: table.digest, rows: table.rows, uploaded_at: table.uploaded_at }
}
