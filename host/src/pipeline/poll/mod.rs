//! Poll delivery (RFC 8936): a receiver fetches the SETs of a subscription, and acknowledges or rejects them.
//!
//! The rows are those of the outbox. A polled subscription has no lane in the dispatcher: its due deliveries stay in the
//! ledger until a poll takes them through `filter` and `sign`. Each is then leased, and offered again if it is neither
//! acknowledged nor rejected in time.

mod request;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use setgate_base::clock::Clock;
use setgate_domain::attempt::{Attempt, Outcome, SentSet};
use setgate_domain::delivery::{DeliverySeq, DueDelivery};
use setgate_domain::id::{DeliveryId, SubscriptionId, TenantId};
use setgate_domain::subscription::Subscription;
use setgate_domain::time::Timestamp;
use setgate_ledger::{Deliveries, Registry, SignedSet, Versioned};

use super::attempt::{Attempter, Prepared};
use super::due_queue::DueQueue;
use super::next::Next;

pub use request::{PollAnswer, PollRequest, SetError};
pub(in crate::pipeline) use streams::Streams;

use streams::{LEASE_MS, Lease};

/// Limit for the SETs of one answer, in bytes. One SET is always offered, however large.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Time after which a poll answers with the SETs that it has, if their filters are slow.
const PREPARE_MS_MAX: i64 = 2_000;
/// Rows that are read from the ledger at once.
const ROWS: usize = 128;
/// Time until a held poll looks again at a delivery that was not ready, such as one whose tenant has no fuel left.
const NOT_READY_MS: u64 = 1_000;

/// A polled subscription.
#[derive(Debug, Clone)]
pub struct PolledSubscription {
    pub(crate) tenant: TenantId,
    id: SubscriptionId,
    /// SHA-256 of the receiver's token.
    digest: [u8; 32],
}

/// Why a poll was not answered.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// The token was replaced, or the subscription removed or changed, while the poll was held.
    #[error("the token is not valid any more")]
    Unauthorised,
    /// The ledger could not be read or written.
    #[error(transparent)]
    Ledger(#[from] setgate_ledger::Error),
}

/// Answers polls.
pub(crate) struct Poller {
    registry: Registry,
    deliveries: Deliveries,
    attempter: Arc<Attempter>,
    due: DueQueue,
    clock: Clock,
    streams: Streams,
}

/// A SET to be offered.
struct Offer {
    set: SignedSet,
    lease: Lease,
}

/// The SETs that are ready.
#[derive(Default)]
struct Offers {
    offers: Vec<Offer>,
    bytes: usize,
    /// Whether there are more than these.
    more: bool,
    /// Whether a delivery is due but not ready, so that another look is worthwhile.
    not_ready: bool,
}

impl Poller {
    pub(super) fn new(
        registry: Registry,
        deliveries: Deliveries,
        attempter: Arc<Attempter>,
        due: DueQueue,
        clock: Clock,
        streams: Streams,
    ) -> Self {
        Self { registry, deliveries, attempter, due, clock, streams }
    }

    /// The polled subscription, if the digest is that of one of its receiver's tokens.
    pub(crate) fn authorise(
        &self,
        tenant: TenantId,
        id: SubscriptionId,
        digest: &[u8; 32],
    ) -> Option<PolledSubscription> {
        let of = PolledSubscription { tenant, id, digest: *digest };
        self.subscription(&of).ok().map(|_| of)
    }

    /// Applies the acknowledgements and errors of a poll, and returns the next SETs. If there are none, the poll is held
    /// for up to `hold`, unless it asks for an immediate answer. A later poll of the same subscription ends it.
    ///
    /// If the future is dropped, the SETs that it has leased are free again.
    pub(crate) async fn poll(
        &self,
        of: &PolledSubscription,
        request: PollRequest,
        hold: Duration,
    ) -> Result<PollAnswer, PollError> {
        self.apply(of, &request).await?;
        let sets_max = request.sets_max();
        if sets_max == 0 {
            return Ok(PollAnswer::default());
        }
        let held = self.streams.begin(of.id);
        let until = tokio::time::Instant::now() + hold;
        let mut registry = self.registry.changed();
        loop {
            let offers = self.collect(of, sets_max, request.return_immediately).await?;
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if !offers.offers.is_empty() || request.return_immediately || left.is_zero() || !held.is_newest() {
                return Ok(offers.answer());
            }
            let wait = left.min(self.next_look(of, offers.not_ready));
            tokio::select! {
                () = held.wake.notified() => {}
                _ = registry.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
            if !held.is_newest() {
                return Ok(PollAnswer::default());
            }
        }
    }

    /// Time until a held poll looks again without being woken.
    fn next_look(&self, of: &PolledSubscription, not_ready: bool) -> Duration {
        if not_ready {
            return Duration::from_millis(NOT_READY_MS);
        }
        let now = self.clock.now();
        let lease_ends = self.streams.next_end(of.id, now).map_or(LEASE_MS, |end| end.since(now));
        Duration::from_millis(lease_ends.clamp(1, LEASE_MS).unsigned_abs())
    }

    /// The subscription, if the token is one of its receiver's now.
    fn subscription(&self, of: &PolledSubscription) -> Result<Arc<Versioned<Subscription>>, PollError> {
        let now = self.clock.now();
        let stored = self.registry.snapshot().subscription(&of.tenant, of.id).cloned();
        let stored = stored.ok_or(PollError::Unauthorised)?;
        let mut tokens = stored.value.poll.iter().flat_map(|poll| &poll.tokens);
        // These are digests of random tokens, so the time of the comparison reveals nothing about the tokens.
        let is_valid = tokens.any(|token| token.is_valid(now) && token.digest.0 == of.digest);
        if is_valid { Ok(stored) } else { Err(PollError::Unauthorised) }
    }

    /// The next SETs in order. With `again`, those that are leased follow if there are no others.
    async fn collect(&self, of: &PolledSubscription, sets_max: usize, again: bool) -> Result<Offers, PollError> {
        let mut offers = Offers::default();
        // Checked each time, because a poll is held for a while.
        let subscription = self.subscription(of)?;
        if subscription.value.paused.is_some() {
            return Ok(offers);
        }
        for leased in [false, true] {
            if leased && (!again || !offers.offers.is_empty()) {
                break;
            }
            self.collect_rows(of, &subscription, (sets_max, leased), &mut offers).await?;
        }
        // The filters may have run for a while.
        self.subscription(of)?;
        Ok(offers)
    }

    async fn collect_rows(
        &self,
        of: &PolledSubscription,
        subscription: &Arc<Versioned<Subscription>>,
        (sets_max, leased): (usize, bool),
        offers: &mut Offers,
    ) -> Result<(), setgate_ledger::Error> {
        let begin = self.clock.now();
        let mut after: Option<(Timestamp, DeliverySeq)> = None;
        loop {
            let now = self.clock.now();
            let rows = self.deliveries.due(&of.tenant, of.id, now, after, ROWS).await?;
            let is_last = rows.len() < ROWS;
            after = rows.last().map(|row| (row.due_at, row.seq));
            for row in rows {
                let Some(lease) = self.streams.lease(of.id, row.seq, now, leased) else { continue };
                let late = self.clock.now().since(begin) > PREPARE_MS_MAX;
                if offers.is_full(sets_max) || (late && !offers.offers.is_empty()) {
                    offers.more = true;
                    return Ok(());
                }
                match self.attempter.prepare(row, subscription.clone()).await? {
                    Prepared::Signed(set) => offers.add(Offer { set, lease }),
                    Prepared::Not(Next::Rest(unblocked)) => {
                        self.due.push(unblocked.into_iter().map(|row| *row).collect()).await;
                    }
                    Prepared::Not(_) => offers.not_ready = true,
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Settles the deliveries that a poll acknowledges or rejects. Unknown `jti` are ignored, because a receiver repeats
    /// an acknowledgement whose answer it did not get.
    async fn apply(&self, of: &PolledSubscription, request: &PollRequest) -> Result<(), PollError> {
        let subscription = self.subscription(of)?;
        let rejected = request.set_errs.iter().map(|(jti, error)| (jti, Some(error.limited())));
        // An error outweighs an acknowledgement of the same SET.
        let acknowledged = request.ack.iter().filter(|jti| !request.set_errs.contains_key(*jti));
        let answers = rejected.chain(acknowledged.map(|jti| (jti, None)));
        let answers = answers.filter_map(|(jti, error)| Some((jti.parse::<DeliveryId>().ok()?, error)));
        let answers: Vec<_> = answers.filter(|(id, _)| id.subscription == of.id).collect();
        let ids = answers.iter().map(|(id, _)| *id).collect();
        let found = self.deliveries.due_by_ids(&of.tenant, ids).await?;
        let settling = answers.into_iter().zip(found).filter_map(|((_, error), found)| {
            let (row, set) = found?;
            Some(self.settle(of, subscription.clone(), row, set, error))
        });
        for settled in join_all(settling).await {
            if let Next::Rest(unblocked) = settled? {
                self.due.push(unblocked.into_iter().map(|row| *row).collect()).await;
            }
        }
        Ok(())
    }

    async fn settle(
        &self,
        of: &PolledSubscription,
        subscription: Arc<Versioned<Subscription>>,
        delivery: DueDelivery,
        set: SentSet,
        error: Option<SetError>,
    ) -> Result<Next, setgate_ledger::Error> {
        let now = self.clock.now();
        let at = self.streams.end(of.id, delivery.seq).unwrap_or(now);
        let outcome = match error {
            None => Outcome::Acknowledged,
            Some(SetError { err, description }) => Outcome::Rejected { err, description },
        };
        let attempt = Attempt {
            number: delivery.attempts + 1,
            at,
            latency_us: u64::try_from(now.since(at).max(0)).unwrap_or(0).saturating_mul(1_000),
            outcome,
            signed_with: Vec::new(),
            set: Some(set),
            sent: None,
            connection: None,
        };
        self.attempter.settle_answer(delivery, subscription, attempt).await
    }
}

impl Offers {
    fn add(&mut self, offer: Offer) {
        self.bytes += offer.set.token.len();
        self.offers.push(offer);
    }

    fn is_full(&self, sets_max: usize) -> bool {
        self.offers.len() >= sets_max || self.bytes >= ANSWER_BYTES_MAX
    }

    /// The answer with these SETs, which stay leased.
    fn answer(self) -> PollAnswer {
        let mut sets = serde_json::Map::with_capacity(self.offers.len());
        for Offer { set, lease } in self.offers {
            sets.insert(set.jti, set.token.into());
            lease.keep();
        }
        PollAnswer { sets, more_available: self.more }
    }
}
