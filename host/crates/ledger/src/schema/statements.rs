//! Prepared statements of a batch. Each is looked up in the connection's cache once and then reused by all requests of
//! the batch: hashing its text each time took a twentieth of the writer's time.

use rusqlite::{CachedStatement, Connection, Statement};

/// Statements used so far; returned to the connection's cache on drop.
pub(crate) struct Statements<'a> {
    conn: &'a Connection,
    cached: Vec<(&'static str, CachedStatement<'a>)>,
}

impl<'a> Statements<'a> {
    pub(crate) fn new(conn: &'a Connection) -> Self {
        Self { conn, cached: Vec::new() }
    }

    /// The prepared statement for `sql`. Only for statements that most requests of a batch use, because the lookup is a
    /// linear search.
    pub(crate) fn get(&mut self, sql: &'static str) -> Result<&mut Statement<'a>, rusqlite::Error> {
        // The same text is usually the same literal, so comparing pointers suffices; the compiler may also have
        // duplicated it.
        let place = self.cached.iter().position(|(cached, _)| std::ptr::eq(*cached, sql));
        let place = match place.or_else(|| self.cached.iter().position(|(cached, _)| *cached == sql)) {
            Some(place) => place,
            None => {
                self.cached.push((sql, self.conn.prepare_cached(sql)?));
                self.cached.len() - 1
            }
        };
        Ok(&mut self.cached[place].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statement_is_prepared_once() {
        const SQL: &str = "SELECT ?1 + 1";
        let conn = Connection::open_in_memory().unwrap();
        let mut statements = Statements::new(&conn);
        let copy: &'static str = SQL.to_owned().leak();
        for (sql, given) in [(SQL, 1), (copy, 2), (SQL, 3)] {
            let sum: i64 = statements.get(sql).unwrap().query_row([given], |row| row.get(0)).unwrap();
            assert_eq!(sum, given + 1);
        }
        assert_eq!(statements.cached.len(), 1);
        assert!(statements.get("SELECT").is_err(), "what cannot be prepared is not kept");
        assert_eq!(statements.cached.len(), 1);
        drop(statements);
        let runs = conn.prepare_cached(SQL).unwrap().get_status(rusqlite::StatementStatus::Run);
        assert_eq!(runs, 3);
    }
}
