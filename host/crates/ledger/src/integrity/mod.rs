//! Detection of damage in the files of a ledger.

pub(crate) mod damage;
pub(crate) mod inspect;
pub(crate) mod wal_check;
