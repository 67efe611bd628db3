//! The tables a plan pinned, read once and shared.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::id::Digest;
use crate::domain::table::Rows;
use crate::sandbox::Tables;

/// The tables of one plan, as the sandbox asks for them.
pub(super) struct PinnedTables(pub(super) HashMap<Box<str>, Arc<Rows>>);

impl Tables for PinnedTables {
    fn get(&self, table: &str, key: &str) -> Option<Option<Arc<str>>> {
        Some(self.0.get(table)?.get(key).cloned())
    }
}

/// Parsed tables by digest, so that a table is read once and not once per event.
pub(super) type Cache = moka::future::Cache<Digest, Arc<Rows>>;
