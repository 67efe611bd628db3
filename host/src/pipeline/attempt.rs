//! The stages of one delivery, in order: filter, sign, seal, deliver, settle.

use std::sync::Arc;

use setgate_domain::attempt::Attempt;
use setgate_domain::delivery::{DueDelivery, Step};
use setgate_domain::subscription::Subscription;
use setgate_ledger::{Registry, SignedSet, Versioned};

use super::deliver::Sender;
use super::filter::FilterStage;
use super::next::{Attempted, Filtered, Next};
use super::seal::Sealer;
use super::settle::Settler;
use super::sign::{self, SetSigner};

/// A delivery to a polling receiver, after its filters and its signature.
pub(super) enum Prepared {
    /// It can be offered.
    Signed(SignedSet),
    /// It cannot be offered now.
    Not(Next),
}

/// Takes a due delivery through its stages.
pub(super) struct Attempter {
    registry: Registry,
    pub(super) filter: FilterStage,
    signer: SetSigner,
    sealer: Sealer,
    sender: Sender,
    settler: Arc<Settler>,
}

impl Attempter {
    pub(super) fn new(
        registry: Registry,
        filter: FilterStage,
        signer: SetSigner,
        sealer: Sealer,
        sender: Sender,
        settler: Arc<Settler>,
    ) -> Self {
        Self { registry, filter, signer, sealer, sender, settler }
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
        if subscription.value.paused.is_some() || subscription.value.endpoint.is_none() {
            // It was paused while the filters ran, or its receiver polls now. The delivery stays due and its lane waits.
            return Ok(Next::requeue(row));
        }
        let signed = match &subscription.value.signed_set {
            Some(settings) => match self.signer.sign(&filtered, settings).await {
                Ok(signed) => Ok(Some(signed)),
                Err(sign::Error::Ledger(error)) => return Err(error),
                Err(sign::Error::Gone) => return Ok(Next::requeue(row)),
                Err(error) => Err(error.to_string()),
            },
            None => Ok(None),
        };
        let (accepted_at, passed) = (filtered.accepted_at(), std::mem::take(&mut filtered.passed));
        let sealed = signed.and_then(|signed| {
            self.sealer.seal(filtered, signed, subscription.clone()).map_err(|error| error.to_string())
        });
        let attempted = match sealed {
            Ok(sealed) => self.sender.deliver(sealed, passed).await,
            Err(why) => self.sender.unsendable(row, subscription, (accepted_at, passed), why),
        };
        Ok(Next::Settle(Box::new(attempted)))
    }

    /// Processes a due delivery to a polling receiver up to its signature. Both results are stored.
    pub(super) async fn prepare(
        &self,
        delivery: DueDelivery,
        subscription: Arc<Versioned<Subscription>>,
    ) -> Result<Prepared, setgate_ledger::Error> {
        let mut filtered = match self.filter.run(delivery).await? {
            Next::Send(filtered) => *filtered,
            next => return Ok(Prepared::Not(next)),
        };
        let row = DueDelivery { filtered: true, ..filtered.delivery.clone() };
        let Some(settings) = &subscription.value.signed_set else { return Ok(Prepared::Not(Next::requeue(row))) };
        if !filtered.passed.is_empty() {
            let runs = std::mem::take(&mut filtered.passed);
            self.settler.settle(&row, Step::Filtered { claims: None, runs }).await?;
        }
        let why = match self.signer.sign(&filtered, settings).await {
            Ok(set) => return Ok(Prepared::Signed(set)),
            Err(sign::Error::Ledger(error)) => return Err(error),
            Err(sign::Error::Gone) => return Ok(Prepared::Not(Next::requeue(row))),
            Err(error) => error.to_string(),
        };
        let attempted = self.sender.unsendable(row, subscription, (filtered.accepted_at(), Vec::new()), why);
        self.settle(attempted).await.map(Prepared::Not)
    }

    /// Commits the answer of a polling receiver.
    pub(super) async fn settle_answer(
        &self,
        delivery: DueDelivery,
        subscription: Arc<Versioned<Subscription>>,
        attempt: Attempt,
    ) -> Result<Next, setgate_ledger::Error> {
        // The chain was settled before the SET was offered.
        let settled_before = (delivery.id.event.created_at(), Vec::new());
        self.settle(self.sender.attempted(delivery, subscription, settled_before, attempt)).await
    }

    /// Commits the consequences of an attempt.
    pub(super) async fn settle(&self, attempted: Attempted) -> Result<Next, setgate_ledger::Error> {
        self.settler.settle_attempt(attempted).await
    }
}
