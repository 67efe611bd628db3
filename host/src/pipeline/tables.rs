//! The tables a plan pinned, read once and shared.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::id::{Digest, TableName};
use crate::domain::table::Rows;
use crate::sandbox::Tables;

/// The tables of one plan, as the sandbox asks for them.
pub(super) struct PinnedTables(pub(super) BTreeMap<TableName, Arc<Rows>>);

impl Tables for PinnedTables {
    fn get(&self, table: &str, key: &str) -> Option<Option<Arc<str>>> {
        let rows = self.0.iter().find(|(name, _)| name.as_str() == table)?.1;
        Some(rows.get(key).cloned())
    }
}

/// Parsed tables by digest, so that a table is read once and not once per event.
pub(super) type Cache = moka::future::Cache<Digest, Arc<Rows>>;
