//! Column encodings of domain values: ULIDs and digests as blobs, instants as milliseconds, names as text, everything
//! else as JSON text. A value that cannot be decoded is a column error, which [`crate::Error`] reports as corrupt.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, RowIndex};
use serde::Serialize;
use serde::de::DeserializeOwned;
use setgate_domain::delivery::{DeliverySeq, State};
use setgate_domain::event::EventSeq;
use setgate_domain::id::{Digest, EventId, ReplayId, SourceName, SubscriptionId, TenantId};
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::schema::compression::Column;

/// A domain value that can be written into a column. Neither the domain's types nor rusqlite's traits are defined in this
/// crate, so columns take [`Sql`] around such a value.
pub(crate) trait ToColumn {
    fn to_column(&self) -> rusqlite::Result<ToSqlOutput<'_>>;
}

/// A domain value that can be read from a column, by [`ReadColumn::column`].
pub(crate) trait FromColumn: Sized {
    fn from_column(value: ValueRef<'_>) -> FromSqlResult<Self>;
}

/// A domain value as a parameter of a statement, or as a column of its result.
pub(crate) struct Sql<T>(pub T);

impl<T: ToColumn> ToSql for Sql<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_column()
    }
}

impl<T: FromColumn> FromSql for Sql<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        T::from_column(value).map(Self)
    }
}

impl<T: ToColumn + ?Sized> ToColumn for &T {
    fn to_column(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        (**self).to_column()
    }
}

impl<T: ToColumn> ToColumn for Option<T> {
    fn to_column(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.as_ref().map_or(Ok(ToSqlOutput::from(rusqlite::types::Null)), ToColumn::to_column)
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn from_column(value: ValueRef<'_>) -> FromSqlResult<Self> {
        if let ValueRef::Null = value { Ok(None) } else { T::from_column(value).map(Some) }
    }
}

/// The parameters of a statement: values of the domain and of SQLite. Takes the place of `rusqlite::params`.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$(&$crate::schema::sql_types::Sql(&$value) as &dyn rusqlite::ToSql),*] as &[&dyn rusqlite::ToSql]
    };
}
pub(crate) use params;

macro_rules! delegate_to_rusqlite {
    ($($type:ty),*) => {$(
        impl ToColumn for $type {
            fn to_column(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                self.to_sql()
            }
        }
    )*};
}

delegate_to_rusqlite!(
    bool,
    i64,
    u32,
    rusqlite::types::Value,
    str,
    String,
    [u8],
    Vec<u8>,
    [u8; 32],
    [u8; 16],
    Column<'_>
);

impl FromColumn for String {
    fn from_column(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::column_result(value)
    }
}

impl<T: Serialize> ToColumn for Json<T> {
    fn to_column(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.to_sql()
    }
}

/// Reads domain values from a row.
pub(crate) trait ReadColumn {
    /// # Errors
    /// If there is no such column, or if it holds another kind of value.
    fn column<T: FromColumn>(&self, index: impl RowIndex) -> rusqlite::Result<T>;
}

impl ReadColumn for Row<'_> {
    fn column<T: FromColumn>(&self, index: impl RowIndex) -> rusqlite::Result<T> {
        self.get(index).map(|Sql(value)| value)
    }
}

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl ToColumn for $type {
            fn to_column(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.as_str()))
            }
        }

        impl FromColumn for $type {
            fn from_column(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value.as_str()?.parse().map_err(FromSqlError::other)
            }
        }
    )*};
}

macro_rules! as_blob {
    ($($type:ty),*) => {$(
        impl ToColumn for $type {
            fn to_column(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.to_bytes().to_vec()))
            }
        }

        impl FromColumn for $type {
            fn from_column(value: ValueRef<'_>) -> FromSqlResult<Self> {
                <[u8; 16]>::column_result(value).map(Self::from_bytes)
            }
        }
    )*};
}

macro_rules! as_integer {
    ($($type:ty),*) => {$(
        impl ToColumn for $type {
            fn to_column(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::from(self.0))
            }
        }

        impl FromColumn for $type {
            fn from_column(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value.as_i64().map(Self)
            }
        }
    )*};
}

as_text!(TenantId, SourceName);
as_blob!(EventId, ReplayId, SubscriptionId);
as_integer!(EventSeq, DeliverySeq);

impl ToColumn for Timestamp {
    fn to_column(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.as_millis()))
    }
}

impl FromColumn for Timestamp {
    fn from_column(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Self::from_millis)
    }
}

impl ToColumn for Digest {
    fn to_column(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_slice()))
    }
}

impl FromColumn for Digest {
    fn from_column(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 32]>::column_result(value).map(Self)
    }
}

/// The stored number of a state. The partial indexes in the DDL spell these numbers out.
pub(crate) const fn state_number(state: State) -> i64 {
    match state {
        State::Due => 0,
        State::Delivered => 1,
        State::Dropped => 2,
        State::Held => 3,
        State::Dead => 4,
    }
}

impl ToColumn for State {
    fn to_column(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(state_number(*self)))
    }
}

impl FromColumn for State {
    fn from_column(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        State::ALL.into_iter().find(|s| state_number(*s) == number).ok_or(FromSqlError::OutOfRange(number))
    }
}

/// A value stored as JSON text.
pub(crate) struct Json<T>(pub T);

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        serde_json::to_string(&self.0)
            .map(ToSqlOutput::from)
            .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(FromSqlError::other)
    }
}

/// Rows that cannot be decoded, at most `most`, each described by its name and error. The first column must be the key.
pub(crate) fn unreadable<T>(
    conn: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> Result<T, Error>,
    name: impl Fn(i64) -> String,
    most: usize,
) -> Result<Vec<String>, Error> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut faults = Vec::new();
    while let Some(row) = rows.next()?.filter(|_| faults.len() < most) {
        if let Err(error) = read(row) {
            faults.push(format!("{}: {error}", name(row.get(0)?)));
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_numbers_match_order() {
        for (number, state) in (0_i64..).zip(State::ALL) {
            assert_eq!(state_number(state), number);
        }
    }
}
