//! The tenant's read-only tables, for enrichment. A binding has to grant `lookup`.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::host;

/// The row under `key`, or none where the table has no such key.
pub fn get<T: DeserializeOwned>(table: &str, key: &str) -> Result<Option<T>, LookupError> {
    let row = host::lookup(table, key).map_err(|refusal| match refusal {
        Refusal::NoSuchTable => LookupError::NoSuchTable { table: table.to_owned() },
        Refusal::OverBudget => LookupError::OverBudget,
    })?;
    let Some(row) = row else { return Ok(None) };
    let row = serde_json::from_str(&row);
    Ok(Some(row.map_err(|source| LookupError::Row { table: table.to_owned(), key: key.to_owned(), source })?))
}

/// Why a look-up gave no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum LookupError {
    /// The tenant has no table of that name.
    NoSuchTable {
        /// The table that was asked for.
        table: String,
    },
    /// The call's budget of look-ups or bytes is spent.
    OverBudget,
    /// The row is there, but is not of the type that was asked for.
    Row {
        /// The table.
        table: String,
        /// The row's key.
        key: String,
        /// What does not fit.
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

/// The contract's two reasons, before they are told apart by table and key.
pub(crate) enum Refusal {
    NoSuchTable,
    OverBudget,
}
