//! The writer thread (group commit). It takes all queued requests, runs them in one transaction, commits once and only
//! then replies: one fsync for many requests, and no reply before it.
//!
//! A failed request must leave no changes behind, and must not affect the other requests of its batch. A savepoint
//! around each would ensure that, but copies every page the request changes. A batch of repeatable requests is
//! therefore run without savepoints first: requests validate before they write, and one that failed before its first
//! change needs no undo. If a request did fail after a change, the batch is rolled back and run again with a savepoint
//! for each request.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use setgate_domain::event::EventSeq;
use tokio::sync::mpsc;

use crate::commit::checkpoint;
use crate::commit::checkpoint::CheckpointConnection;
use crate::commit::effects::{Effects, SharedState};
use crate::commit::group_commit::CommitDelay;
use crate::commit::queue::{Batch, QueueItem, QueuedRequest, RequestOutcome};
use crate::dedupe;
use crate::schema;
use crate::schema::readers::Readers;
use crate::schema::statements::Statements;
use crate::state::counters::StatisticsCache;
use crate::state::fanout_cursor::FanoutCursor;
use crate::{Error, Options};

/// Minimum time between two measurements of the file size.
const MEASURE_INTERVAL: Duration = Duration::from_millis(100);
/// Minimum time between two attempts to reopen the files.
const REOPEN_INTERVAL: Duration = Duration::from_secs(5);

/// State of the writer, moved onto its thread.
pub(crate) struct Writer {
    /// `None` if reopening the files failed.
    pub(crate) conn: Option<Connection>,
    pub(crate) options: Options,
    /// All other connections: they are closed while the files are reopened.
    pub(crate) readers: [Readers; 2],
    pub(crate) checkpointer: CheckpointConnection,
    pub(crate) measured_at: Option<Instant>,
    pub(crate) reopened_at: Option<Instant>,
    /// Cached rows of the statistics.
    pub(crate) statistics: StatisticsCache,
    pub(crate) dedupe: dedupe::Index,
    pub(crate) shared: Arc<SharedState>,
    pub(crate) queue: mpsc::Receiver<QueueItem>,
    pub(crate) batch_max: usize,
    pub(crate) commit_delay: CommitDelay,
    /// Held until the thread ends, so that no other process opens the ledger while this one may still write.
    pub(crate) lock: std::fs::File,
    /// Dropped with the writer, which ends the checkpointer.
    pub(crate) writer_alive: std::sync::mpsc::Sender<()>,
}

impl Writer {
    /// Runs until the queue is closed, or an [`QueueItem::Stop`] arrives, and the queue is empty.
    pub(crate) fn run(mut self) {
        let mut batch: Vec<Box<dyn QueuedRequest>> = Vec::with_capacity(self.batch_max);
        while let Some(item) = self.queue.blocking_recv() {
            let mut bytes = 0;
            let mut checkpoint = false;
            let mut probe = false;
            let mut next = Some(item);
            if matches!(next, Some(QueueItem::Write(..)))
                && let Some(mut slices) = self.commit_delay.begin(Instant::now())
            {
                while self.queue.len() + 1 < self.batch_max
                    && let Some(wait) = slices.next(self.queue.len() + 1)
                {
                    std::thread::sleep(wait);
                }
            }
            while let Some(item) = next.take() {
                match item {
                    QueueItem::Write(request, size) => {
                        bytes += size;
                        batch.push(request);
                    }
                    QueueItem::Checkpoint => checkpoint = true,
                    QueueItem::Probe => probe = true,
                    // Requests sent before the stop are still in the queue and will be received.
                    QueueItem::Stop => self.queue.close(),
                }
                if batch.len() < self.batch_max {
                    next = self.queue.try_recv().ok();
                }
            }
            if !batch.is_empty() {
                self.commit(&mut batch, bytes);
            } else if probe {
                self.probe();
            }
            if self.shared.disk.is_suspect() && self.shared.disk.failing().is_none() {
                self.reopen();
            }
            if let Some(conn) = self.conn.as_ref().filter(|_| checkpoint && !self.shared.disk.is_suspect()) {
                checkpoint::run(conn, "PASSIVE", &self.shared);
            }
        }
        if let Some(conn) = self.conn.as_ref().filter(|_| !self.shared.disk.is_suspect()) {
            checkpoint::run(conn, "TRUNCATE", &self.shared);
        }
        drop(self.writer_alive);
        drop(self.conn);
        drop(self.lock);
    }

    fn commit(&mut self, batch: &mut Vec<Box<dyn QueuedRequest>>, bytes: usize) {
        let began = Instant::now();
        let size = batch.len();
        let outcome = self.run_batch(batch);
        let committed = match outcome {
            Ok(CommittedBatch { effects, fanout_cursor, disk_failed, has_changes }) => {
                self.shared.publish(effects, fanout_cursor);
                if disk_failed {
                    self.shared.disk.failed("a request", &"the disk has no space or returned an error");
                } else if has_changes {
                    self.shared.disk.works();
                }
                self.measure();
                Ok(())
            }
            Err(error) => {
                self.roll_back();
                self.statistics.clear();
                self.dedupe.rolled_back();
                setgate_base::telemetry::persistent_counters::counter(crate::COMMIT_FAILURES, String::new()).add(1);
                self.shared.disk.failed("a commit", &error);
                Err(Arc::new(error))
            }
        };
        let took = began.elapsed();
        if committed.is_ok() {
            self.commit_delay.committed(size, took, began + took);
        }
        metrics::histogram!(crate::COMMIT_SECONDS).record(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^52 requests")]
        metrics::histogram!(crate::BATCH_SIZE).record(size as f64);
        // Before the replies, so that a caller that got its reply sees the freed capacity.
        self.shared.queue_bytes.fetch_sub(bytes, Ordering::AcqRel);
        for request in batch.drain(..) {
            request.reply(committed.clone());
        }
    }

    fn roll_back(&self) {
        if let Some(conn) = self.conn.as_ref().filter(|conn| !conn.is_autocommit())
            && let Err(error) = conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "rollback of a ledger transaction failed");
        }
    }

    /// Writes a row on no request's behalf, to find out whether the disk works again.
    fn probe(&mut self) {
        let written = match &self.conn {
            Some(conn) => conn.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('probe', randomblob(8))", []),
            None => Err(files_closed()),
        };
        match written {
            Ok(_) => self.shared.disk.works(),
            Err(error) => {
                self.roll_back();
                self.shared.disk.failed("a probe", &error);
                if self.conn.is_none() {
                    self.reopen();
                }
            }
        }
    }

    /// Closes every connection and reopens the file as after a crash, so that the WAL is recovered from its start.
    /// Called right after a successful commit, which makes the whole WAL durable.
    fn reopen(&mut self) {
        if self.reopened_at.is_some_and(|at| at.elapsed() < REOPEN_INTERVAL) {
            return;
        }
        self.reopened_at = Some(Instant::now());
        let mut checkpoint_conn = self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner);
        let paused: Vec<_> = self.readers.iter().map(Readers::close_connections).collect();
        drop((checkpoint_conn.take(), self.conn.take()));
        let opened = schema::open_writer(&self.options)
            .and_then(|conn| Ok((conn, schema::open_checkpointer(&self.options.path)?)));
        match opened {
            Ok((conn, checkpointer)) => {
                (self.conn, *checkpoint_conn) = (Some(conn), Some(checkpointer));
                self.shared.disk.clear_suspect();
                tracing::warn!("the ledger's files were reopened after an I/O error; no data was lost");
            }
            Err(error) => self.shared.disk.failed("reopening the files", &error),
        }
        drop(paused);
    }

    /// Updates the file size in use and the memory of the dedupe index, at most every [`MEASURE_INTERVAL`].
    fn measure(&mut self) {
        let Some(conn) =
            self.conn.as_ref().filter(|_| self.measured_at.is_none_or(|at| at.elapsed() > MEASURE_INTERVAL))
        else {
            return;
        };
        if let Ok(used) = schema::used_bytes(conn) {
            self.shared.space.set_ledger_used(used);
        }
        self.shared.dedupe_bytes.store(self.dedupe.bytes(), Ordering::Relaxed);
        self.measured_at = Some(Instant::now());
    }

    /// Runs the batch as one transaction. On an error none of it is durable.
    fn run_batch(&mut self, batch: &mut [Box<dyn QueuedRequest>]) -> Result<CommittedBatch, rusqlite::Error> {
        if batch.iter().all(|request| request.is_repeatable()) {
            if let Some(written) = self.run_transaction(batch, Undo::All)? {
                return Ok(written);
            }
            self.conn.as_ref().ok_or_else(files_closed)?.execute_batch("ROLLBACK")?;
        }
        // With a savepoint per request, a failed request can always be undone.
        self.run_transaction(batch, Undo::Request)?.ok_or_else(|| aborted("a request could not be undone"))
    }

    /// Runs the batch with the given undo strategy. `None` if everything must be rolled back, which is left to the
    /// caller.
    fn run_transaction(
        &mut self,
        batch: &mut [Box<dyn QueuedRequest>],
        undo: Undo,
    ) -> Result<Option<CommittedBatch>, rusqlite::Error> {
        let conn = self.conn.as_ref().ok_or_else(files_closed)?;
        let changes = conn.total_changes();
        let step = |sql: &str| conn.prepare_cached(sql)?.execute([]).map(drop);
        step("BEGIN IMMEDIATE")?;
        let snapshot = self.shared.snapshot.load_full();
        let mut effects = Effects::default();
        let before = *self.shared.fanout_cursor.borrow();
        let (mut fanout_cursor, mut inserted_deliveries) = (before, 0);
        let (mut statements, mut plans, mut appended) = (Statements::new(conn), Vec::new(), Vec::new());
        let mut document_usage = Vec::new();
        let mut disk_failed = false;
        for request in batch {
            let changes = conn.total_changes();
            if undo == Undo::Request {
                step("SAVEPOINT request")?;
            }
            let known = (plans.len(), appended.len(), document_usage.len());
            let mut scope = Batch {
                conn,
                statements,
                effects: Effects::default(),
                fanout_cursor,
                inserted_deliveries,
                plans,
                dedupe: &self.dedupe,
                appended,
                snapshot: &snapshot,
                document_usage,
            };
            let outcome = request.run(&mut scope);
            (statements, plans, appended) = (scope.statements, scope.plans, scope.appended);
            document_usage = scope.document_usage;
            if matches!(outcome, RequestOutcome::Done) {
                effects.merge(scope.effects);
                (fanout_cursor, inserted_deliveries) = (scope.fanout_cursor, scope.inserted_deliveries);
            } else {
                plans.truncate(known.0);
                appended.truncate(known.1);
                document_usage.truncate(known.2);
                disk_failed |= matches!(outcome, RequestOutcome::DiskFailed);
                // On a full disk or an I/O error SQLite may have rolled back the transaction by itself. Continuing
                // would run the remaining requests outside any transaction.
                if conn.is_autocommit() {
                    return Err(aborted("a request's error ended the transaction"));
                }
                match undo {
                    Undo::All if conn.total_changes() != changes => return Ok(None),
                    Undo::All => {}
                    Undo::Request => step("ROLLBACK TO request")?,
                }
            }
            if undo == Undo::Request {
                step("RELEASE request")?;
            }
        }
        drop(statements);
        let cursor = (fanout_cursor.position() != before.position()).then_some(fanout_cursor.position());
        let retention_watermark = EventSeq(self.shared.retention_watermark.load(Ordering::Relaxed));
        let stored = effects.store(conn, &mut self.statistics, cursor);
        stored.and_then(|()| self.dedupe.append(conn, appended, retention_watermark)).map_err(|error| match error {
            Error::Engine(error) => error,
            other => rusqlite::Error::ToSqlConversionFailure(Box::new(other)),
        })?;
        step("COMMIT")?;
        self.dedupe.committed();
        Ok(Some(CommittedBatch { effects, fanout_cursor, disk_failed, has_changes: conn.total_changes() != changes }))
    }
}

/// How the changes of a failed request are undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undo {
    /// Rolls back the whole transaction. Not needed if the request failed before it changed a row.
    All,
    /// Rolls back the request alone, to its savepoint.
    Request,
}

/// A committed batch.
struct CommittedBatch {
    effects: Effects,
    fanout_cursor: FanoutCursor,
    /// The disk failed one of its requests.
    disk_failed: bool,
    /// It changed a row: a commit without changes proves nothing about the disk.
    has_changes: bool,
}

fn aborted(why: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT_ROLLBACK);
    rusqlite::Error::SqliteFailure(code, Some(why.to_owned()))
}

fn files_closed() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
    rusqlite::Error::SqliteFailure(code, Some("the files are closed and not reopened yet".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use crate::schema::sql_types::params;

    use super::*;
    use crate::Appended::New;
    use crate::tests::{TENANT, block_on, event, in_one_batch, new_delivery, open, tenant, with_events, with_tenant};
    use setgate_domain::delivery::{DeliverySeq, State};
    use setgate_domain::event::NewEvent;

    #[test]
    fn failed_request_does_not_affect_batch() {
        block_on(async {
            let (_folder, ledger) = open();
            with_tenant(&ledger).await;
            let queue = ledger.store.queue();
            let (before, failing, after) = tokio::join!(
                ledger.events.append(event(1)),
                queue.write(|batch| -> Result<(), Error> {
                    batch.conn.execute("INSERT INTO meta VALUES ('half', ?1)", params![vec![1_u8]])?;
                    Err(Error::InvalidCursor)
                }),
                ledger.events.append(event(2)),
            );
            assert!(before.is_ok() && after.is_ok());
            assert!(matches!(failing, Err(Error::InvalidCursor)));
            assert_eq!(ledger.upkeep.meta_get("half").await.unwrap(), None);
            assert_eq!(ledger.events.events_after(Default::default(), 10).await.unwrap().len(), 2);
        });
    }

    /// A request without a savepoint fails after a write: the batch runs again and that write is undone.
    #[test]
    fn failure_after_write_reruns_batch() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 0).await;
            let queue = ledger.store.queue();
            let runs = Arc::new(AtomicUsize::new(0));
            let counted = |failing: bool| {
                let runs = Arc::clone(&runs);
                queue.write_named(move |batch| {
                    let run = runs.fetch_add(1, Ordering::SeqCst);
                    if failing {
                        batch.conn.execute("INSERT INTO meta VALUES ('half', x'01')", [])?;
                        batch.conn.execute("UPDATE delivery SET state = 4", [])?;
                        batch.fanout_cursor.append_complete(EventSeq(7));
                        batch.effects.notify_dispatcher(new_delivery(1, 1, plan).due(DeliverySeq(9)));
                        return Err(Error::InvalidCursor);
                    }
                    Ok(run)
                })
            };
            let requests = async {
                tokio::join!(biased;
                    counted(false),
                    ledger.events.append_with(event(1), vec![new_delivery(1, 1, plan)]),
                    counted(true),
                    ledger.events.append_with(event(2), vec![new_delivery(2, 1, plan)]),
                    // Refused before it writes, so it does not cause another run of the batch.
                    ledger.events.append(NewEvent { tenant: "nobody".parse().unwrap(), ..event(3) }),
                )
            };
            let (first, one, failing, two, nobody) = in_one_batch(&ledger, requests).await;
            assert_eq!(first.unwrap(), 2, "the answer is that of the run which counts");
            assert_eq!((one.unwrap().appended, two.unwrap().appended), (New(EventSeq(1)), New(EventSeq(2))));
            assert!(matches!((failing, nobody), (Err(Error::InvalidCursor), Err(Error::NoTenant(_)))));
            assert_eq!(runs.load(Ordering::SeqCst), 4, "each twice");
            assert_eq!(ledger.upkeep.meta_get("half").await.unwrap(), None);
            let told: Vec<_> = ledger.deliveries.take_new().due.iter().map(|due| (due.seq.0, due.event.0)).collect();
            assert_eq!((ledger.events.cursor(), told), (EventSeq(2), vec![(1, 1), (2, 2)]));
            assert_eq!(ledger.usage.backlog(&TENANT.parse().unwrap()), 2);
            let hot = ledger.deliveries.load(&tenant().id, DeliverySeq(2)).await.unwrap().unwrap();
            assert_eq!((hot.event.seq, hot.state), (EventSeq(2), State::Due));
            assert_eq!(ledger.deliveries.load(&tenant().id, DeliverySeq(1)).await.unwrap().unwrap().state, State::Due);
        });
    }

    #[test]
    fn failure_before_write_does_not_rerun_batch() {
        block_on(async {
            let (_folder, ledger) = open();
            with_tenant(&ledger).await;
            let nobody = NewEvent { tenant: "nobody".parse().unwrap(), ..event(3) };
            let mut runs = 0;
            let counted = ledger.store.queue().write_named(move |_| {
                runs += 1;
                Ok(runs)
            });
            let requests =
                async { tokio::join!(biased; counted, ledger.events.append(nobody), ledger.events.append(event(1))) };
            let (counted, nobody, one) = in_one_batch(&ledger, requests).await;
            assert!(matches!((counted, nobody), (Ok(1), Err(Error::NoTenant(_)))));
            assert_eq!(one.unwrap(), New(EventSeq(1)));
        });
    }

    #[test]
    fn failed_request_publishes_no_deliveries() {
        block_on(async {
            let (_folder, ledger) = open();
            let plan = with_events(&ledger, 0).await;
            let delivery = new_delivery(1, 1, plan);
            let due = delivery.due(DeliverySeq(1));
            let refused = ledger.store.queue().write(move |batch| -> Result<(), Error> {
                batch.fanout_cursor.append_complete(EventSeq(7));
                batch.effects.notify_dispatcher(due);
                Err(Error::InvalidCursor)
            });
            assert!(matches!(refused.await, Err(Error::InvalidCursor)));
            assert_eq!((ledger.events.cursor(), ledger.deliveries.take_new().due.len()), (Default::default(), 0));
            ledger.events.append_with(event(1), vec![delivery]).await.unwrap();
            assert_eq!((ledger.events.cursor().0, ledger.deliveries.take_new().due.len()), (1, 1));
        });
    }

    /// A full disk fails the writes at that moment and leaves nothing to repair.
    #[test]
    fn recovers_after_disk_full() {
        block_on(async {
            let (_folder, ledger) = open();
            with_tenant(&ledger).await;
            let pages_max = |pages: i64| {
                ledger.store.queue().write(move |batch| {
                    batch
                        .conn
                        .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0))?;
                    Ok(())
                })
            };
            pages_max(1).await.unwrap();
            let mut large = event(1);
            large.original = crate::tests::noise(1 << 20, 1).into();
            let error = ledger.events.append(large.clone()).await.unwrap_err();
            assert!(error.is_temporary(), "{error}");
            assert!(ledger.usage.stats().failing.is_some());
            assert_eq!(ledger.events.events_after(Default::default(), 10).await.unwrap().len(), 0);
            pages_max(1 << 30).await.unwrap();
            ledger.events.append(large).await.unwrap();
            assert!(ledger.usage.stats().failing.is_none());
            assert_eq!(
                ledger.events.event(&TENANT.parse().unwrap(), event(1).id).await.unwrap().unwrap().original.len(),
                1 << 20
            );
        });
    }

    #[test]
    fn refuses_if_queue_bytes_exceeded() {
        block_on(async {
            let (_folder, ledger) = open();
            with_tenant(&ledger).await;
            // The queue already holds a large request: the next one is refused at once instead of being kept in memory.
            ledger.store.shared().queue_bytes.store(usize::MAX / 2, Ordering::SeqCst);
            assert!(matches!(ledger.events.append(event(1)).await, Err(Error::Busy)));
            assert_eq!(ledger.store.shared().queue_bytes.load(Ordering::SeqCst), usize::MAX / 2);
        });
    }
}
