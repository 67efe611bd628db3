//! The part of an open ledger that all its handles share.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::{ArcSwap, Guard};
use setgate_base::clock::Clock;
use setgate_domain::filter::Plan;
use setgate_domain::id::{Digest, TenantId};

use crate::Options;
use crate::commit::{effects, queue};
use crate::schema::readers::{self, ReadersOf};

pub(crate) struct Store {
    pub(crate) options: ArcSwap<Options>,
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<effects::SharedState>,
    /// `None` only during drop: closing the queue ends the writer.
    pub(crate) queue: Option<queue::Queue>,
    pub(crate) readers: readers::Readers,
    pub(crate) history_readers: readers::Readers,
    pub(crate) plans: moka::future::Cache<Digest, Arc<Plan>>,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Store {
    pub(crate) fn queue(&self) -> &queue::Queue {
        self.queue.as_ref().expect("only `drop` takes the queue, and a handle is alive")
    }

    pub(crate) fn readers(&self) -> &readers::Readers {
        &self.readers
    }

    pub(crate) fn history_readers(&self) -> &readers::Readers {
        &self.history_readers
    }

    pub(crate) fn shared(&self) -> &effects::SharedState {
        &self.shared
    }

    pub(crate) fn plans(&self) -> &moka::future::Cache<Digest, Arc<Plan>> {
        &self.plans
    }

    pub(crate) fn options(&self) -> Guard<Arc<Options>> {
        self.options.load()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The history pool on behalf of a tenant.
    pub(crate) fn history_of(&self, tenant: &TenantId) -> ReadersOf<'_> {
        self.history_readers().of(tenant)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.queue.take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        join(threads);
    }
}

pub(crate) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the ledger panicked");
        }
    }
}
