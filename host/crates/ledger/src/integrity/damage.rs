//! Detects damage in the file, and skips damaged events. Nothing here repairs, deletes or rebuilds data: damaged rows
//! can only be restored from a backup.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rusqlite::{ErrorCode, OptionalExtension};
use setgate_domain::event::EventSeq;

use crate::Error;
use crate::schema::event_row::{EVENT_COLUMNS, read_event};
use crate::schema::sql_types::params;
use crate::upkeep::Upkeep;

/// Counter: accepted events that cannot be read and were skipped. No delivery was made for them.
pub(crate) const SKIPPED_EVENTS: &str = "setgate_events_damaged_total";
/// Maximum number of faults reported by one check.
const FAULTS_MAX: usize = 20;
/// Maximum number of journal positions read one by one to find the end of the damage.
const SCAN_MAX: i64 = 10_000;
/// Key in `meta` of the skipped events: a JSON list of ranges (first and last position).
const NAME: &str = "damaged events";
/// Maximum number of ranges stored.
const RANGES_MAX: usize = 1_000;

/// Result of [`Upkeep::check`](crate::Upkeep::check).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuickCheck {
    /// The whole file is structurally sound.
    Sound,
    /// The time limit was reached without any fault found so far.
    NotFinished,
    /// Faults as described by SQLite.
    Damaged(Vec<String>),
}

impl Upkeep {
    /// Checks the structure of the file for up to `check_ms_max`, concurrently with other work. Changed bytes within a
    /// row that still decode are not detected.
    pub async fn check(&self) -> Result<QuickCheck, Error> {
        let limit = Duration::from_millis(self.0.options().check_ms_max);
        if limit.is_zero() {
            return Ok(QuickCheck::NotFinished);
        }
        let checked = self
            .0
            .history_readers()
            .read(move |conn| {
                let interrupt = conn.get_interrupt_handle();
                let (running, ended) = mpsc::channel::<()>();
                let timer = std::thread::Builder::new().name("ledger-check".to_owned()).spawn(move || {
                    if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                        interrupt.interrupt();
                    }
                });
                let lines = conn.prepare(&format!("PRAGMA quick_check({FAULTS_MAX})")).and_then(|mut statement| {
                    statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()
                });
                drop(running);
                if let Ok(timer) = timer {
                    let _ = timer.join();
                }
                // The check read the whole file, so its cached pages are of no further use. A failure only keeps them
                // in memory.
                let _kept = conn.execute_batch("PRAGMA shrink_memory");
                match lines {
                    Ok(lines) if lines == ["ok"] => Ok(QuickCheck::Sound),
                    Ok(lines) => Ok(QuickCheck::Damaged(lines)),
                    Err(error) => match error.sqlite_error_code() {
                        Some(ErrorCode::OperationInterrupted) => Ok(QuickCheck::NotFinished),
                        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                            Ok(QuickCheck::Damaged(vec![error.to_string()]))
                        }
                        _ => Err(error.into()),
                    },
                }
            })
            .await?;
        if matches!(checked, QuickCheck::Damaged(_)) {
            metrics::gauge!(crate::metric_names::DAMAGED).set(1.0);
        }
        Ok(checked)
    }

    /// Advances the cursor past the unreadable events right after it, so that later events and other tenants' events
    /// are delivered. The skipped events stay in the file and are recorded. Returns their number.
    pub async fn skip_damaged(&self) -> Result<u64, Error> {
        let fanout_cursor = *self.0.shared().fanout_cursor.borrow();
        let (cursor, last) = (fanout_cursor.position(), fanout_cursor.last());
        let end = last.0.min(cursor.0.saturating_add(SCAN_MAX));
        let (through, count) = self
            .0
            .readers()
            .read(move |conn| {
                let mut found = (cursor.0, 0);
                for place in cursor.0 + 1..=end {
                    let mut statement =
                        conn.prepare_cached(&format!("SELECT {EVENT_COLUMNS} FROM event e WHERE e.seq = ?1"))?;
                    let read = statement
                        .query([place])
                        .map_err(Error::from)
                        .and_then(|mut rows| rows.next().map_err(Error::from)?.map(read_event).transpose());
                    match read {
                        Ok(Some(_)) => return Ok(found),
                        // A sequence number that was never used, or was deleted.
                        Ok(None) => {}
                        Err(error) if error.is_damage() => found = (place, found.1 + 1),
                        Err(error) => return Err(error),
                    }
                }
                Ok(found)
            })
            .await?;
        if count == 0 {
            return Ok(0);
        }
        let through = EventSeq(through);
        self.0
            .queue()
            .write(move |batch| {
                let stored: Option<Vec<u8>> = batch
                    .conn
                    .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
                    .query_row([NAME], |row| row.get(0))
                    .optional()?;
                let mut ranges: Vec<(i64, i64)> =
                    stored.and_then(|stored| serde_json::from_slice(&stored).ok()).unwrap_or_default();
                ranges.push((cursor.0 + 1, through.0));
                let over = ranges.len().saturating_sub(RANGES_MAX);
                ranges.drain(..over);
                let stored = serde_json::to_vec(&ranges).map_err(|error| Error::corrupt(error.to_string()))?;
                batch
                    .conn
                    .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?
                    .execute(params![NAME, stored])?;
                batch.fanout_cursor.advance_to(through);
                Ok(())
            })
            .await?;
        metrics::gauge!(crate::metric_names::DAMAGED).set(1.0);
        metrics::counter!(SKIPPED_EVENTS).increment(count);
        tracing::error!(
            count,
            from = cursor.0 + 1,
            to = through.0,
            "accepted events cannot be read, because the ledger is damaged. They are skipped, not delivered and not deleted; \
             all other events are delivered. Restore a backup, see docs/how-to/storage.md"
        );
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{block_on, event, open, with_events};

    #[test]
    fn intact_file_passes() {
        block_on(async {
            let (_folder, ledger) = open();
            with_events(&ledger, 3).await;
            assert_eq!(ledger.upkeep.check().await.unwrap(), QuickCheck::Sound);
        });
    }

    #[test]
    fn unreadable_events_are_skipped_and_retained() {
        block_on(async {
            let (_folder, ledger) = open();
            with_events(&ledger, 4).await;
            let spoil = "UPDATE event SET types = 'no JSON' WHERE seq IN (1, 2, 4)";
            ledger.store.queue().write(move |batch| Ok(batch.conn.execute(spoil, [])?)).await.unwrap();
            assert!(ledger.events.events_after(EventSeq(0), 10).await.unwrap_err().is_damage());
            assert_eq!(ledger.upkeep.skip_damaged().await.unwrap(), 2);
            assert_eq!(ledger.events.cursor(), EventSeq(2));
            assert_eq!(ledger.events.events_after(EventSeq(2), 1).await.unwrap()[0].id, event(3).id);
            assert_eq!(ledger.upkeep.skip_damaged().await.unwrap(), 0, "the next one can be read");
            let stored = ledger.upkeep.meta_get(NAME).await.unwrap().unwrap();
            assert_eq!(stored, b"[[1,2]]");
        });
    }
}
