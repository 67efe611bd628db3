//! The writer's queue, and the context in which its requests run.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;
use setgate_domain::id::{Digest, TenantId};
use tokio::sync::{mpsc, oneshot};

use crate::Error;
use crate::commit::effects::{Effects, SharedState};
use crate::dedupe::{Entry, Index};
use crate::schema::statements::Statements;
use crate::state::document_usage::DocumentUsage;
use crate::state::fanout_cursor::FanoutCursor;
use crate::state::recent_writes::ChangedRows;
use crate::state::snapshot::Snapshot;

/// An entry of the queue.
pub(crate) enum QueueItem {
    /// A request to run in the next batch, and its size in bytes.
    Write(Box<dyn QueuedRequest>, usize),
    /// Finish a checkpoint: the checkpointer never catches up with a writer that keeps writing.
    Checkpoint,
    /// Write something, to find out whether the disk works.
    Probe,
    /// Accept no more requests, finish the queued ones, then end.
    Stop,
}

/// Context of a running request.
pub(crate) struct Batch<'a> {
    /// Inside the batch's transaction.
    pub(crate) conn: &'a Connection,
    /// Cached statements on `conn`, for those that most requests of a batch run.
    pub(crate) statements: Statements<'a>,
    /// Changes of this request other than its rows.
    pub(crate) effects: Effects,
    /// End of the journal and fan-out cursor, including the earlier requests of this batch.
    pub(crate) fanout_cursor: FanoutCursor,
    /// Number of deliveries that appends of this batch have inserted.
    pub(crate) inserted_deliveries: usize,
    /// Row ids of plans that requests of this batch have looked up.
    pub(crate) plans: Vec<(Digest, i64)>,
    /// The dedupe index as of the last commit.
    pub(crate) dedupe: &'a Index,
    /// Dedupe keys of the events appended in this batch so far, not yet in the index.
    pub(crate) appended: Vec<Entry>,
    /// The registry as of the last commit; changes made in this batch are not included.
    pub(crate) snapshot: &'a Snapshot,
    /// Document usage that changes of this batch have added to their tenants.
    pub(crate) document_usage: Vec<(TenantId, DocumentUsage)>,
}

/// Outcome of running a request.
pub(crate) enum RequestOutcome {
    Done,
    /// It failed, and its rows must be undone.
    Refused,
    /// Like `Refused`, because the disk is full or broken.
    DiskFailed,
}

/// A type-erased request, from the queue to its reply.
pub(crate) trait QueuedRequest: Send {
    /// Whether it may be run again after a run that was rolled back.
    fn is_repeatable(&self) -> bool;
    /// Runs the request. Only the result of the last run counts.
    fn run(&mut self, batch: &mut Batch<'_>) -> RequestOutcome;
    /// Replies with the result, or with the commit's error.
    fn reply(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>);
}

struct Request<T, F> {
    rows: ChangedRows,
    write: F,
    result: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> QueuedRequest for Request<T, F>
where
    T: Send,
    F: FnMut(&mut Batch<'_>) -> Result<T, Error> + Send,
{
    fn is_repeatable(&self) -> bool {
        self.rows == ChangedRows::Listed
    }

    fn run(&mut self, batch: &mut Batch<'_>) -> RequestOutcome {
        let result = (self.write)(batch);
        let outcome = match &result {
            Ok(_) => {
                batch.effects.may_have_changed(self.rows);
                RequestOutcome::Done
            }
            Err(error) if error.is_of_disk() => RequestOutcome::DiskFailed,
            Err(_) => RequestOutcome::Refused,
        };
        self.result = Some(result);
        outcome
    }

    fn reply(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>) {
        let answer = match (committed, self.result) {
            // A refusal is independent of the outcome of the commit.
            (_, Some(Err(refusal))) => Err(refusal),
            (Err(error), _) => Err(Error::Commit(error)),
            (Ok(()), Some(done)) => done,
            (Ok(()), None) => Err(Error::Closed),
        };
        // The caller may have been cancelled; the write stands.
        let _ = self.reply.send(answer);
    }
}

/// Handle to the writer's queue.
pub(crate) struct Queue {
    sender: mpsc::Sender<QueueItem>,
    shared: Arc<SharedState>,
    bytes_max: usize,
}

impl Queue {
    pub(crate) fn new(sender: mpsc::Sender<QueueItem>, shared: Arc<SharedState>, bytes_max: usize) -> Self {
        Self { sender, shared, bytes_max }
    }

    /// Runs `write` in a batch and returns once it is durable. Waits if the queue is full. Dropping the future does not
    /// cancel the request.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Batch<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let mut write = Some(write);
        let once = move |batch: &mut Batch<'_>| write.take().map_or(Err(Error::Closed), |write| write(batch));
        self.write_rows(ChangedRows::Unknown, once).await
    }

    /// Like [`Queue::write`], for a request that lists the rows it changes ([`ChangedRows::Listed`]) and may be run again: the
    /// rows and effects of the previous run have been rolled back by then.
    pub(crate) async fn write_named<T: Send + 'static>(
        &self,
        write: impl FnMut(&mut Batch<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.write_rows(ChangedRows::Listed, write).await
    }

    async fn write_rows<T: Send + 'static>(
        &self,
        rows: ChangedRows,
        write: impl FnMut(&mut Batch<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let request = Request { rows, write, result: None, reply };
        self.sender.send(QueueItem::Write(Box::new(request), 0)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Like [`Queue::write_named`], but fails with [`Error::Busy`] if the queue is full, in requests or in `bytes`. For
    /// requests that only insert rows.
    pub(crate) async fn write_unless_full<T: Send + 'static>(
        &self,
        bytes: usize,
        write: impl FnMut(&mut Batch<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let request = Request { rows: ChangedRows::Listed, write, result: None, reply };
        let waiting = self.shared.queue_bytes.fetch_add(bytes, Ordering::AcqRel);
        // A single request larger than the limit is admitted when the queue is otherwise empty, or it never could be.
        let sent = if waiting > 0 && waiting.saturating_add(bytes) > self.bytes_max {
            Err(Error::Busy)
        } else {
            self.sender.try_send(QueueItem::Write(Box::new(request), bytes)).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Error::Busy,
                mpsc::error::TrySendError::Closed(_) => Error::Closed,
            })
        };
        if let Err(error) = sent {
            self.shared.queue_bytes.fetch_sub(bytes, Ordering::AcqRel);
            return Err(error);
        }
        answer.await.map_err(|_| Error::Closed)?
    }

    pub(crate) fn depth(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// Makes the writer end. Returns once the request to stop is queued.
    pub(crate) async fn stop(&self) {
        // An error means the queue is already closed, which is the goal.
        let _ = self.sender.send(QueueItem::Stop).await;
    }

    /// Whether the writer accepts requests.
    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(crate) fn downgrade(&self) -> mpsc::WeakSender<QueueItem> {
        self.sender.downgrade()
    }
}
