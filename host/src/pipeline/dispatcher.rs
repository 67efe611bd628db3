//! Loop B: leases due deliveries and runs each through filter, seal, deliver and settle.
//!
//! A lease is an entry in `Lanes`. It exists only in memory, so a crash releases it. Only the loop accesses the lanes;
//! all other parts send messages to its channel.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use metrics::{counter, gauge};
use setgate_base::telemetry::{Seldom, metric};
use setgate_domain::breaker::{BreakerBounds, Heard, Turn};
use setgate_domain::delivery::{DeliverySeq, DueDelivery, Step};
use setgate_domain::endpoint::Origin;
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::time::Timestamp;
use setgate_ledger::Made;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Pipeline;
use super::deliver::Attempted;
use super::filter::{Filtered, Progress};
use super::lane::{Bounds, EndpointKey, Lanes, Route};
use super::settle::Onward;
use crate::config;

/// Capacity of the channel in batches of due deliveries. If it is full, senders wait.
const TOLD_MAX: usize = 256;
/// Delay in milliseconds before a delivery is retried after an internal error.
const AFTER_FAILURE_MS: i64 = 10_000;
/// Delay in milliseconds before a delivery is retried after this host lacked a resource for the attempt.
const AFTER_SHORTAGE_MS: i64 = 1_000;
/// Longest sleep of the loop in milliseconds. It bounds the delay until a forward clock change is noticed.
const SLEEP_MS_MAX: u64 = 1_000;

/// Rate limit for the log line about an unreadable outbox, because each lane retries every second.
static TOLD: Seldom = Seldom::new(Duration::from_secs(60));

/// Notifies the dispatcher of due deliveries.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Vec<DueDelivery>>);

impl Handle {
    /// Queues due deliveries. If the dispatcher has stopped, they are found in the ledger at the next start.
    pub async fn due(&self, deliveries: Vec<DueDelivery>) {
        if !deliveries.is_empty() {
            let _stopped = self.0.send(deliveries).await;
        }
    }
}

/// The dispatcher before it runs.
pub struct Dispatcher {
    pipeline: Pipeline,
    told: mpsc::Receiver<Vec<DueDelivery>>,
    lanes: Lanes,
}

/// The result of the work on a delivery.
#[derive(Default)]
struct Seen {
    /// The row, if the delivery is due again.
    again: Option<DueDelivery>,
    /// The next delivery of the same subject, if this one unblocked it.
    freed: Option<DueDelivery>,
}

/// The result of one stage of work.
enum Reached {
    /// The delivery is finished for now.
    End(Box<Seen>),
    /// The filters have run and made the delivery larger than estimated.
    Grown(Box<Filtered>),
    /// An attempt has ended and must be settled. Its endpoint's slot is already free for the next delivery.
    Attempt(Box<Attempted>),
}

/// A completed task.
enum Ended {
    /// An attempt ended.
    Attempt(DeliverySeq, Box<Attempted>),
    /// Filters made their delivery larger than estimated.
    Grown(Box<Filtered>),
    /// The work on a delivery ended.
    Delivery(DeliverySeq, Box<Seen>),
    /// A query of the ledger ended.
    Asked { tenant: TenantId, subscription: SubscriptionId, asked: usize, rows: Option<Vec<DueDelivery>> },
}

impl Dispatcher {
    /// A dispatcher and its handle.
    pub fn new(pipeline: Pipeline) -> (Self, Handle) {
        let (tell, told) = mpsc::channel(TOLD_MAX);
        let lanes = Lanes::new(bounds(&pipeline.settings.now().delivery));
        (Self { pipeline, told, lanes }, Handle(tell))
    }

    /// Runs until `stop` is cancelled. Then deliveries in flight may finish for `drain_ms_max`, and the rest is
    /// released.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Err(error) = self.find_what_is_due().await {
            error!(%error, "the outbox cannot be read; it is tried again");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(SLEEP_MS_MAX)) => {}
            }
        }
        let ledger = self.pipeline.ledger.clone();
        let mut registry = ledger.changed();
        let mut settings = self.pipeline.settings.changes();
        let mut work = JoinSet::new();
        let in_flight = gauge!(metric::IN_FLIGHT);
        let in_flight_bytes = gauge!(metric::IN_FLIGHT_BYTES);
        loop {
            self.ask(&mut work);
            self.start(&mut work);
            in_flight.set(u32::try_from(self.lanes.in_flight()).unwrap_or(u32::MAX));
            #[expect(clippy::cast_precision_loss, reason = "bytes in memory")]
            in_flight_bytes.set(self.lanes.bytes() as f64);
            let sleep = self.sleep();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(deliveries) = self.told.recv() => self.take_in(deliveries),
                () = ledger.until_made() => self.take_made(),
                Some(ended) = work.join_next() => {
                    self.end(ended, &mut work);
                    while let Some(ended) = work.try_join_next() {
                        self.end(ended, &mut work);
                    }
                }
                _ = registry.changed() => self.open_lanes(),
                _ = settings.changed() => self.lanes.bound(bounds(&self.pipeline.settings.now().delivery)),
                () = tokio::time::sleep(sleep) => {}
            }
        }
        self.drain(work).await;
    }

    async fn find_what_is_due(&mut self) -> Result<(), setgate_ledger::Error> {
        match self.pipeline.ledger.lanes().await {
            Ok(lanes) => {
                for lane in lanes {
                    self.lanes.on_disk(&lane.tenant, lane.subscription);
                }
            }
            // Each lane then queries its own rows, so that readable ones proceed.
            Err(error) if error.is_damage() => {
                error!(%error, "the outbox cannot be read as a whole");
                for (tenant, view) in &self.pipeline.ledger.snapshot().tenants {
                    for subscription in view.subscriptions.keys() {
                        self.lanes.on_disk(tenant, *subscription);
                    }
                }
            }
            Err(error) => return Err(error),
        }
        self.open_lanes();
        Ok(())
    }

    /// Updates the lanes to match the current subscriptions.
    fn open_lanes(&mut self) {
        let pipeline = self.pipeline.clone();
        self.lanes.keep(|tenant, subscription| pipeline.subscription(tenant, *subscription).is_some());
        for (tenant, subscription) in self.lanes.all() {
            self.open_lane(&tenant, subscription);
        }
        // Endpoints without subscriptions were removed, and with them their breakers.
        self.count_breakers();
    }

    /// Updates the gauge of open breakers. Iterates over all endpoints with state, so it is called on state changes
    /// only, not for each delivery.
    fn count_breakers(&self) {
        gauge!(metric::BREAKERS_OPEN).set(u32::try_from(self.lanes.breakers_open()).unwrap_or(u32::MAX));
    }

    fn open_lane(&mut self, tenant: &TenantId, subscription: SubscriptionId) {
        let route = match self.pipeline.subscription(tenant, subscription) {
            Some(subscription) if subscription.value.paused.is_some() => None,
            Some(subscription) => Some(Route {
                origin: subscription.value.endpoint.origin(),
                per_second: subscription.value.pacing.per_second,
                in_flight_max: subscription.value.pacing.in_flight_max,
            }),
            // The subscription was removed. Its deliveries become dead letters, which needs no endpoint.
            None => Some(Route::to(Origin { https: true, host: String::new(), port: 0 })),
        };
        self.lanes.open(tenant, subscription, route);
    }

    fn take_in(&mut self, deliveries: Vec<DueDelivery>) {
        for delivery in deliveries {
            let (tenant, subscription) = (delivery.tenant.clone(), delivery.id.subscription);
            self.lanes.told(delivery);
            self.open_lane(&tenant, subscription);
        }
    }

    fn take_made(&mut self) {
        let Made { due, on_disk } = self.pipeline.ledger.made();
        for (tenant, subscription) in on_disk {
            self.lanes.on_disk(&tenant, subscription);
            self.open_lane(&tenant, subscription);
        }
        self.take_in(due);
    }

    fn ask(&mut self, work: &mut JoinSet<Ended>) {
        for (tenant, subscription, asked) in self.lanes.short() {
            let ledger = self.pipeline.ledger.clone();
            work.spawn(async move {
                // Any due time, so that the lane knows when its next delivery is due.
                let ever = Timestamp::from_millis(i64::MAX);
                let rows = match ledger.due(&tenant, subscription, ever, None, asked).await {
                    Ok(rows) => Some(rows),
                    Err(error) => {
                        if let Some(unsaid) = TOLD.due() {
                            error!(%subscription, %error, unsaid, "the outbox cannot be read; it is tried again");
                        }
                        tokio::time::sleep(Duration::from_millis(SLEEP_MS_MAX)).await;
                        None
                    }
                };
                Ended::Asked { tenant, subscription, asked, rows }
            });
        }
    }

    fn start(&mut self, work: &mut JoinSet<Ended>) {
        // Without a writable ledger, the result of an attempt could not be stored and the request would be sent again.
        if !self.pipeline.ledger.takes_writes() {
            return;
        }
        let now = self.pipeline.clock.now();
        while let Some(delivery) = self.lanes.take(now) {
            let pipeline = self.pipeline.clone();
            work.spawn(async move {
                let worked = Box::pin(pipeline.see_through(delivery.clone()));
                pipeline.guard(delivery, worked).await
            });
        }
    }

    fn end(&mut self, ended: Result<Ended, tokio::task::JoinError>, work: &mut JoinSet<Ended>) {
        match ended {
            Ok(Ended::Delivery(seq, seen)) => {
                let Seen { again, freed } = *seen;
                let turned = self.lanes.done(seq, again, self.pipeline.clock.now());
                self.tell(turned);
                self.take_in(freed.into_iter().collect());
            }
            Ok(Ended::Attempt(seq, attempted)) => {
                let heard = Heard::of(&attempted.attempt.outcome);
                let turned = self.lanes.left(seq, heard, self.pipeline.clock.now());
                self.tell(turned);
                let pipeline = self.pipeline.clone();
                work.spawn(async move {
                    let delivery = attempted.delivery.clone();
                    let worked = Box::pin(pipeline.settle_and_go_on(*attempted));
                    pipeline.guard(delivery, worked).await
                });
            }
            Ok(Ended::Grown(filtered)) => {
                let delivery = filtered.row();
                if self.lanes.grow(delivery.seq, delivery.bytes) {
                    let pipeline = self.pipeline.clone();
                    work.spawn(async move {
                        let worked = Box::pin(pipeline.send(*filtered));
                        pipeline.guard(delivery, worked).await
                    });
                } else {
                    let turned = self.lanes.done(delivery.seq, Some(delivery), self.pipeline.clock.now());
                    self.tell(turned);
                }
            }
            Ok(Ended::Asked { tenant, subscription, asked, rows }) => {
                self.lanes.answered(&tenant, subscription, asked, rows);
            }
            Err(error) => error!(%error, "work on a delivery was ended; it is due again at the next start"),
        }
    }

    fn tell(&self, turned: Option<(EndpointKey, Turn)>) {
        if let Some(((tenant, origin), turn)) = turned {
            tell_turn(&tenant, &origin, turn, self.pipeline.clock.now());
            self.count_breakers();
        }
    }

    fn sleep(&self) -> Duration {
        if !self.pipeline.ledger.takes_writes() {
            // A due delivery cannot start, so it is no reason to wake up.
            return Duration::from_millis(SLEEP_MS_MAX);
        }
        // A due delivery that a limit holds back starts when another one ends, so it is no reason to wake up early.
        let until_due = self.lanes.next_due().map_or(i64::MAX, |at| at.since(self.pipeline.clock.now()).max(1));
        let wait_ms = until_due.unsigned_abs().min(SLEEP_MS_MAX);
        Duration::from_millis(wait_ms)
    }

    async fn drain(mut self, mut work: JoinSet<Ended>) {
        let in_flight = self.lanes.in_flight();
        if in_flight > 0 {
            info!(in_flight, "letting deliveries in flight finish");
        }
        let limit = Duration::from_millis(self.pipeline.settings.now().delivery.drain_ms_max);
        let finish = async {
            while let Some(ended) = work.join_next().await {
                self.end(ended, &mut work);
            }
        };
        if tokio::time::timeout(limit, finish).await.is_err() {
            warn!(released = self.lanes.in_flight(), "`drain_ms_max` is over: the rest is released and due again");
            work.shutdown().await;
        }
    }
}

fn bounds(settings: &config::Delivery) -> Bounds {
    Bounds {
        in_flight_max: settings.in_flight_max,
        per_tenant_max: settings.in_flight_per_tenant_max,
        per_endpoint_max: settings.in_flight_per_endpoint_max,
        bytes_max: settings.in_flight_bytes_max,
        bytes_per_tenant_max: settings.in_flight_bytes_per_tenant_max,
        window_max: settings.window_max,
        breaker: breaker_bounds(settings),
    }
}

fn breaker_bounds(settings: &config::Delivery) -> BreakerBounds {
    let millis = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    BreakerBounds {
        failures_max: settings.breaker_failures_max,
        open_ms: millis(settings.breaker_open_ms),
        open_ms_max: millis(settings.breaker_open_ms_max),
        throttle_ms_max: millis(settings.throttle_s_max.saturating_mul(1_000)),
    }
}

fn tell_turn(tenant: &TenantId, origin: &Origin, turn: Turn, now: Timestamp) {
    match turn {
        Turn::Opened(until) => {
            counter!(metric::BREAKER_OPENED, "tenant" => tenant.to_string()).increment(1);
            let for_ms = until.since(now);
            warn!(%tenant, endpoint = %origin, for_ms, "an endpoint fails or asks for time: what is due waits, then one asks");
        }
        Turn::Closed => info!(%tenant, endpoint = %origin, "an endpoint answers again"),
    }
}

impl Pipeline {
    /// Runs the work on a delivery. If it fails or panics, the delivery stays due.
    async fn guard(
        &self,
        delivery: DueDelivery,
        work: impl Future<Output = Result<Reached, setgate_ledger::Error>>,
    ) -> Ended {
        // A panic is a bug, but it must not occupy the delivery's slot forever.
        let why = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(Ok(Reached::End(seen))) => return Ended::Delivery(delivery.seq, seen),
            Ok(Ok(Reached::Attempt(attempted))) => return Ended::Attempt(delivery.seq, attempted),
            Ok(Ok(Reached::Grown(filtered))) => return Ended::Grown(filtered),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "a defect of this program, see its output".to_owned(),
        };
        error!(delivery = %delivery.id, why, "a delivery could not be worked on; it stays due");
        let due_at = self.clock.now().plus_millis(AFTER_FAILURE_MS);
        let seq = delivery.seq;
        let again = Some(DueDelivery { due_at, ..delivery });
        Ended::Delivery(seq, Box::new(Seen { again, ..Seen::default() }))
    }

    /// Processes one delivery up to the end of its attempt, or until it stops before an attempt.
    async fn see_through(&self, delivery: DueDelivery) -> Result<Reached, setgate_ledger::Error> {
        if self.subscription(&delivery.tenant, delivery.id.subscription).is_none() {
            let reason = "its subscription was removed".to_owned();
            let freed = self.settle(&delivery, Step::Dead { attempt: None, reason }).await?.freed;
            return Ok(Reached::end(Seen { freed, ..Seen::default() }));
        }
        let taken_for = delivery.bytes;
        match self.filter(delivery).await? {
            Progress::On(filtered) if filtered.delivery.bytes > taken_for => Ok(Reached::Grown(filtered)),
            Progress::On(filtered) => self.send(*filtered).await,
            Progress::Again(row) => Ok(Reached::again(*row)),
            Progress::Rests(freed) => Ok(Reached::end(Seen { freed: freed.map(|row| *row), ..Seen::default() })),
        }
    }

    /// Processes a delivery with a completed chain up to the end of its attempt.
    async fn send(&self, mut filtered: Filtered) -> Result<Reached, setgate_ledger::Error> {
        let row = filtered.row();
        // Read again, because the filters may have run for a while.
        let Some(subscription) = self.subscription(&row.tenant, row.id.subscription) else {
            return Ok(Reached::again(row));
        };
        if subscription.value.paused.is_some() {
            // The subscription was paused while the filters ran. The delivery stays due and its lane waits.
            return Ok(Reached::again(row));
        }
        let (accepted_at, passed) = (filtered.accepted_at(), std::mem::take(&mut filtered.passed));
        let attempted = match self.seal(filtered, subscription.clone()) {
            Ok(sealed) => match self.deliver(sealed, passed).await {
                Some(attempted) => attempted,
                None => {
                    let due_at = self.clock.now().plus_millis(AFTER_SHORTAGE_MS);
                    return Ok(Reached::again(DueDelivery { due_at, ..row }));
                }
            },
            Err(error) => {
                let attempt = self.unsendable(&row, error.to_string());
                Attempted { delivery: row, subscription, accepted_at, attempt, passed }
            }
        };
        Ok(Reached::Attempt(Box::new(attempted)))
    }

    async fn settle_and_go_on(&self, attempted: Attempted) -> Result<Reached, setgate_ledger::Error> {
        let delivery = attempted.delivery.clone();
        let Onward { due_at, freed } = self.settle_attempt(attempted).await?;
        // Filter runs that had not been settled before were settled with the attempt.
        let again = |due_at| DueDelivery { due_at, attempts: delivery.attempts + 1, filtered: true, ..delivery };
        let again = due_at.map(again);
        Ok(Reached::end(Seen { again, freed }))
    }
}

impl Reached {
    fn again(row: DueDelivery) -> Self {
        Self::end(Seen { again: Some(row), ..Seen::default() })
    }

    fn end(seen: Seen) -> Self {
        Self::End(Box::new(seen))
    }
}

#[cfg(test)]
mod tests;
