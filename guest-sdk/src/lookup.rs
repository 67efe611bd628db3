//! The tenant's read-only tables, for enrichment. The binding must grant `lookup`.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::host;

/// The row under `key`. `None` if the table has no such key.
pub fn get<T: DeserializeOwned>(table: &str, key: &str) -> Result<Option<T>, LookupError> {
    let row = host::lookup(table, key).map_err(|refusal| match refusal {
        Refusal::NoSuchTable => LookupError::NoSuchTable { table: table.to_owned() },
        Refusal::OverBudget => LookupError::OverBudget,
    })?;
    let Some(row) = row else { return Ok(None) };
    let row = serde_json::from_str(&row);
    Ok(Some(row.map_err(|source| LookupError::Row { table: table.to_owned(), key: key.to_owned(), source })?))
}

/// A look-up failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum LookupError {
    /// The tenant has no table of that name.
    NoSuchTable {
        /// Name of the table.
        table: String,
    },
    /// The call's budget of look-ups or bytes is exhausted.
    OverBudget,
    /// The row exists, but cannot be deserialised to the requested type.
    Row {
        /// Name of the table.
        table: String,
        /// The row's key.
        key: String,
        /// The deserialisation error.
        source: serde_json::Error,
    },
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LookupError::NoSuchTable { table } => write!(f, "the tenant has no table `{table}`"),
            LookupError::OverBudget => f.write_str("the call's budget of look-ups is spent"),
            LookupError::Row { table, key, .. } => write!(f, "row `{key}` of table `{table}`"),
        }
    }
}

impl std::error::Error for LookupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LookupError::Row { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The contract's two errors, before table and key are added.
pub(crate) enum Refusal {
    NoSuchTable,
    OverBudget,
}
