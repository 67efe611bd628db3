//! Where requests wait for the writer, and what they see of it while they run.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::Error;
use super::dedupe::{Entry, Index};
use super::effects::{Effects, Shared};
use super::hot::Rows;
use super::reach::Reach;
use super::registry::{Snapshot, Weight};
use super::statements::Statements;
use crate::domain::id::{Digest, TenantId};

/// What waits for the writer.
pub(super) enum Item {
    /// A request to run within the next batch, and its size in bytes.
    Write(Box<dyn Pending>, usize),
    /// Finish what the checkpointer could not: it never catches up with a writer that goes on writing.
    Checkpoint,
    /// Write something, to see whether the disk takes it.
    Probe,
    /// Take no more, finish what waits, end.
    Stop,
}

/// What a request sees while it runs.
pub(super) struct Batch<'a> {
    /// Inside the batch's transaction.
    pub(super) conn: &'a Connection,
    /// The same, for statements that most requests of a batch run.
    pub(super) statements: Statements<'a>,
    /// What this request changes besides rows.
    pub(super) effects: Effects,
    /// How far the journal is, with what earlier requests of the same batch did.
    pub(super) reach: Reach,
    /// Deliveries that appends of the same batch made.
    pub(super) made: usize,
    /// Rows of plans that requests of the same batch found.
    pub(super) plans: Vec<(Digest, i64)>,
    /// Which events have a dedupe key, as last committed.
    pub(super) dedupe: &'a Index,
    /// Of those that earlier requests of the same batch appended, and this one.
    pub(super) appended: Vec<Entry>,
    /// The registry as last committed; changes of the same batch are not in it yet.
    pub(super) snapshot: &'a Snapshot,
    /// What changes of documents in the same batch added to their tenants' weights.
    pub(super) weighed: Vec<(TenantId, Weight)>,
}

/// How a request ended.
pub(super) enum Ran {
    /// Well.
    Done,
    /// It failed, and its rows have to be undone.
    Refused,
    /// As refused, because the disk is full or broken.
    OutOfDisk,
}

/// A request of any type, from the queue to its answer.
pub(super) trait Pending: Send {
    /// Whether it may be run again after a run that was rolled back.
    fn runs_again(&self) -> bool;
    /// Runs it. The last run counts.
    fn run(&mut self, batch: &mut Batch<'_>) -> Ran;
    /// Hands out the result, or the commit's failure in its place.
    fn answer(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>);
}

struct Request<T, F> {
    rows: Rows,
    write: F,
    result: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> Pending for Request<T, F>
where
    T: Send,
    F: FnMut(&mut Batch<'_>) -> Result<T, Error> + Send,
{
    fn runs_again(&self) -> bool {
        self.rows == Rows::Named
    }

    fn run(&mut self, batch: &mut Batch<'_>) -> Ran {
        let result = (self.write)(batch);
        let ran = match &result {
            Ok(_) => {
                batch.effects.may_have_changed(self.rows);
                Ran::Done
            }
            Err(error) if error.is_of_disk() => Ran::OutOfDisk,
            Err(_) => Ran::Refused,
        };
        self.result = Some(result);
        ran
    }

    fn answer(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>) {
        let answer = match (committed, self.result) {
            // A refusal stands however the batch ended.
            (_, Some(Err(refusal))) => Err(refusal),
            (Err(error), _) => Err(Error::Commit(error)),
            (Ok(()), Some(done)) => done,
            (Ok(()), None) => Err(Error::Closed),
        };
        // The caller may be gone; what was written stays.
        let _ = self.reply.send(answer);
    }
}

/// Where requests enter.
pub(super) struct Queue {
    sender: mpsc::Sender<Item>,
    shared: Arc<Shared>,
    bytes_max: usize,
}

impl Queue {
    pub(super) fn new(sender: mpsc::Sender<Item>, shared: Arc<Shared>, bytes_max: usize) -> Self {
        Self { sender, shared, bytes_max }
    }

    /// Runs `write` in a batch and returns once it is durable. Waits where the queue is full.
    /// Dropping the future does not take the request back.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Batch<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let mut write = Some(write);
        let once = move |batch: &mut Batch<'_>| write.take().map_or(Err(Error::Closed), |write| write(batch));
        self.write_rows(Rows::Any, once).await
    }

    /// The same for a request that says what it changes ([`Rows::Named`]), and that can be run again: what it did in
    /// the run before has been rolled back by then, and what it noted besides is forgotten.
    pub(super) async fn write_named<T: Send + 'static>(
        &self,
        write: impl FnMut(&mut Batch<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.write_rows(Rows::Named, write).await
    }

    async fn write_rows<T: Send + 'static>(
        &self,
        rows: Rows,
        write: impl FnMut(&mut Batch<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let request = Request { rows, write, result: None, reply };
        self.sender.send(Item::Write(Box::new(request), 0)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// As [`Queue::write_named`], but refused with [`Error::Busy`] where the queue is full, in requests or in `bytes`. For
    /// what only makes rows.
    pub(super) async fn write_unless_full<T: Send + 'static>(
        &self,
        bytes: usize,
        write: impl FnMut(&mut Batch<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let request = Request { rows: Rows::Named, write, result: None, reply };
        let waiting = self.shared.queue_bytes.fetch_add(bytes, Ordering::AcqRel);
        // A single request larger than the limit is let in alone, or it could never be.
        let sent = if waiting > 0 && waiting.saturating_add(bytes) > self.bytes_max {
            Err(Error::Busy)
        } else {
            self.sender.try_send(Item::Write(Box::new(request), bytes)).map_err(|error| match error {
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

    /// Requests that wait.
    pub(super) fn depth(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// Asks the writer to end; returns once the queue has taken that in.
    pub(super) async fn stop(&self) {
        // A closed queue is what was asked for.
        let _ = self.sender.send(Item::Stop).await;
    }

    /// Whether the writer takes requests.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(super) fn downgrade(&self) -> mpsc::WeakSender<Item> {
        self.sender.downgrade()
    }
}
