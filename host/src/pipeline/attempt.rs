//! The stages of one delivery, in order: filter, seal, deliver, settle.

use std::sync::Arc;

use setgate_domain::delivery::{DueDelivery, Step};
use setgate_ledger::Registry;

use super::deliver::Sender;
use super::filter::FilterStage;
use super::next::{Attempted, Filtered, Next};
use super::seal::Sealer;
use super::settle::Settler;

/// Takes a due delivery through its stages.
pub(super) struct Attempter {
    registry: Registry,
    pub(super) filter: FilterStage,
    sealer: Sealer,
    sender: Sender,
    settler: Arc<Settler>,
}

impl Attempter {
    pub(super) fn new(
        registry: Registry,
        filter: FilterStage,
        sealer: Sealer,
        sender: Sender,
        settler: Arc<Settler>,
    ) -> Self {
        Self { registry, filter, sealer, sender, settler }
    }

    /// Processes a due delivery up to the end of its attempt, or until it stops before an attempt.
    pub(super) async fn attempt(&self, delivery: DueDelivery) -> Result<Next, setgate_ledger::Error> {
        if self.registry.snapshot().subscription(&delivery.tenant, delivery.id.subscription).is_none() {
            let reason = "its subscription was removed".to_owned();
            let settled = self.settler.settle(&delivery, Step::Dead { attempt: None, reason }).await?;
            return Ok(Next::rest(settled.unblocked));
        }
        let reserved_bytes = delivery.bytes;
        match self.filter.run(delivery).await? {
            Next::Send(filtered) if filtered.delivery.bytes <= reserved_bytes => self.send(*filtered).await,
            next => Ok(next),
        }
    }

    /// Processes a delivery with a completed chain up to the end of its attempt.
    pub(super) async fn send(&self, mut filtered: Filtered) -> Result<Next, setgate_ledger::Error> {
        let row = filtered.row();
        // Read again, because the filters may have run for a while.
        let Some(subscription) = self.registry.snapshot().subscription(&row.tenant, row.id.subscription).cloned()
        else {
            return Ok(Next::requeue(row));
        };
        if subscription.value.paused.is_some() {
            // The subscription was paused while the filters ran. The delivery stays due and its lane waits.
            return Ok(Next::requeue(row));
        }
        let (accepted_at, passed) = (filtered.accepted_at(), std::mem::take(&mut filtered.passed));
        let attempted = match self.sealer.seal(filtered, subscription.clone()) {
            Ok(sealed) => self.sender.deliver(sealed, passed).await,
            Err(error) => self.sender.unsendable(row, subscription, (accepted_at, passed), error.to_string()),
        };
        Ok(Next::Settle(Box::new(attempted)))
    }

    /// Commits the consequences of an attempt.
    pub(super) async fn settle(&self, attempted: Attempted) -> Result<Next, setgate_ledger::Error> {
        self.settler.settle_attempt(attempted).await
    }
}
