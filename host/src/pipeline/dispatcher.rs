//! Loop B: leases due deliveries and runs each through filter, seal, deliver and settle.
//!
//! A lease is an entry in `Lanes`. It exists only in memory, so a crash releases it. Only the loop accesses the lanes;
//! other stages notify it through the `DueQueue`.

mod polled;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use super::settings::Delivery;
use futures_util::FutureExt as _;
use metrics::{counter, gauge};
use setgate_base::clock::Clock;
use setgate_base::live::Live;
use setgate_base::telemetry::{LogThrottle, metric};
use setgate_domain::breaker::{BreakerSettings, Transition};
use setgate_domain::delivery::{DeliverySeq, DueDelivery};
use setgate_domain::endpoint::Origin;
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::time::Timestamp;
use setgate_ledger::{Deliveries, NewDue, Registry, Snapshot, Usage};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::attempt::Attempter;
use super::lane::{Bounds, EndpointKey, Lanes, Route};
use super::next::Next;

pub(super) use polled::Polled;

/// Pending deliveries of one subscription held in memory; the rest stays on disk.
const WINDOW_MAX: usize = 512;
/// How long the circuit breaker stays open the first time, in milliseconds; each failed probe doubles the time.
const BREAKER_OPEN_MS: u64 = 1_000;
/// Longest time in seconds for which a `Retry-After` answer pauses the whole endpoint. A longer one, up to a week,
/// applies only to the delivery that received it.
const THROTTLE_S_MAX: u64 = 3_600;
/// Delay in milliseconds before a delivery is retried after an internal error.
const AFTER_FAILURE_MS: i64 = 10_000;
/// Longest sleep of the loop in milliseconds. It bounds the delay until a forward clock change is noticed.
const SLEEP_MS_MAX: u64 = 1_000;

/// Rate limit for the log line about an unreadable outbox, because each lane retries every second.
static UNREADABLE: LogThrottle = LogThrottle::new(Duration::from_secs(60));

/// The dispatcher before it runs.
pub(crate) struct Dispatcher {
    registry: Registry,
    deliveries: Deliveries,
    usage: Usage,
    attempter: Arc<Attempter>,
    clock: Clock,
    settings: Live<Delivery>,
    new_due: mpsc::Receiver<Vec<DueDelivery>>,
    lanes: Lanes,
    polled: Polled,
}

/// The work in progress: deliveries, each with its next step, and queries of the ledger.
#[derive(Default)]
struct Tasks {
    deliveries: JoinSet<(DeliverySeq, Next)>,
    queries: JoinSet<LaneRows>,
}

/// The answer to a lane's query of the ledger. `rows` is `None` if the query failed.
struct LaneRows {
    tenant: TenantId,
    subscription: SubscriptionId,
    asked: usize,
    rows: Option<Vec<DueDelivery>>,
}

impl Dispatcher {
    pub(super) fn new(
        registry: Registry,
        deliveries: Deliveries,
        usage: Usage,
        attempter: Arc<Attempter>,
        clock: Clock,
        settings: Live<Delivery>,
        (new_due, polled): (mpsc::Receiver<Vec<DueDelivery>>, Polled),
    ) -> Self {
        let lanes = Lanes::new(bounds(&settings.now()));
        Self { registry, deliveries, usage, attempter, clock, settings, new_due, lanes, polled }
    }

    /// Runs until `stop` is cancelled. Then deliveries in flight may finish for `drain_ms_max`, and the rest is
    /// released.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Err(error) = self.find_what_is_due().await {
            error!(%error, "outbox cannot be read; retrying");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(SLEEP_MS_MAX)) => {}
            }
        }
        let new = self.deliveries.clone();
        let mut registry = self.registry.changed();
        let mut settings = self.settings.changes();
        let mut tasks = Tasks::default();
        let in_flight = gauge!(metric::IN_FLIGHT);
        let in_flight_bytes = gauge!(metric::IN_FLIGHT_BYTES);
        loop {
            self.query(&mut tasks);
            self.start(&mut tasks);
            in_flight.set(u32::try_from(self.lanes.in_flight()).unwrap_or(u32::MAX));
            #[expect(clippy::cast_precision_loss, reason = "bytes in memory")]
            in_flight_bytes.set(self.lanes.bytes() as f64);
            let sleep = self.sleep();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(deliveries) = self.new_due.recv() => self.take_in(deliveries),
                () = new.new_ready() => self.take_new(),
                Some(ended) = tasks.deliveries.join_next() => {
                    self.advance(ended, &mut tasks);
                    while let Some(ended) = tasks.deliveries.try_join_next() {
                        self.advance(ended, &mut tasks);
                    }
                }
                Some(answer) = tasks.queries.join_next() => self.take_rows(answer),
                _ = registry.changed() => self.open_lanes(),
                _ = settings.changed() => self.lanes.bound(bounds(&self.settings.now())),
                () = tokio::time::sleep(sleep) => {}
            }
        }
        self.drain(tasks).await;
    }

    async fn find_what_is_due(&mut self) -> Result<(), setgate_ledger::Error> {
        match self.deliveries.due_summary().await {
            Ok(lanes) => {
                for lane in lanes {
                    self.left_on_disk(&lane.tenant, lane.subscription);
                }
            }
            // Each lane then queries its own rows, so that readable ones proceed.
            Err(error) if error.is_damage() => {
                error!(%error, "outbox cannot be read as a whole; each subscription's deliveries are read separately");
                for (tenant, view) in &self.registry.snapshot().tenants {
                    for subscription in view.subscriptions.keys() {
                        self.left_on_disk(tenant, *subscription);
                    }
                }
            }
            Err(error) => return Err(error),
        }
        self.open_lanes();
        Ok(())
    }

    /// Marks a lane as having deliveries on disk, unless its receiver polls.
    fn left_on_disk(&mut self, tenant: &TenantId, subscription: SubscriptionId) {
        if !self.polled.take(&self.registry.snapshot(), tenant, subscription) {
            self.lanes.on_disk(tenant, subscription);
        }
    }

    /// Updates the lanes to match the current subscriptions.
    fn open_lanes(&mut self) {
        let snapshot = self.registry.snapshot();
        for (tenant, subscription) in self.polled.ended(&snapshot) {
            self.lanes.on_disk(&tenant, subscription);
        }
        self.lanes.keep(|tenant, subscription| snapshot.subscription(tenant, *subscription).is_some());
        for (tenant, subscription) in self.lanes.all() {
            self.open_lane(&snapshot, &tenant, subscription);
        }
        // Endpoints without subscriptions were removed, and with them their breakers.
        self.count_breakers();
    }

    /// Updates the gauge of open breakers. Iterates over all endpoints with state, so it is called on state changes
    /// only, not for each delivery.
    fn count_breakers(&self) {
        gauge!(metric::BREAKERS_OPEN).set(u32::try_from(self.lanes.breakers_open()).unwrap_or(u32::MAX));
    }

    fn open_lane(&mut self, snapshot: &Snapshot, tenant: &TenantId, subscription: SubscriptionId) {
        let route = match snapshot.subscription(tenant, subscription).map(|stored| &stored.value) {
            Some(subscription) if subscription.paused.is_some() => None,
            Some(subscription) => subscription.endpoint.as_ref().map(|endpoint| Route {
                origin: endpoint.origin(),
                per_second: subscription.pacing.per_second,
                in_flight_max: subscription.pacing.in_flight_max,
            }),
            // The subscription was removed. Its deliveries become dead letters, which needs no endpoint.
            None => Some(Route::to(Origin { https: true, host: String::new(), port: 0 })),
        };
        self.lanes.open(tenant, subscription, route);
    }

    fn take_in(&mut self, deliveries: Vec<DueDelivery>) {
        let snapshot = self.registry.snapshot();
        for delivery in deliveries {
            let (tenant, subscription) = (delivery.tenant.clone(), delivery.id.subscription);
            if !self.polled.take(&snapshot, &tenant, subscription) {
                self.lanes.add_when_free(delivery);
                self.open_lane(&snapshot, &tenant, subscription);
            }
        }
    }

    fn take_new(&mut self) {
        let NewDue { due, on_disk } = self.deliveries.take_new();
        let snapshot = self.registry.snapshot();
        for (tenant, subscription) in on_disk {
            if !self.polled.take(&snapshot, &tenant, subscription) {
                self.lanes.on_disk(&tenant, subscription);
                self.open_lane(&snapshot, &tenant, subscription);
            }
        }
        self.take_in(due);
    }

    fn query(&mut self, tasks: &mut Tasks) {
        for (tenant, subscription, asked) in self.lanes.short() {
            let deliveries = self.deliveries.clone();
            tasks.queries.spawn(async move {
                // Any due time, so that the lane knows when its next delivery is due.
                let ever = Timestamp::from_millis(i64::MAX);
                let rows = match deliveries.due(&tenant, subscription, ever, None, asked).await {
                    Ok(rows) => Some(rows),
                    Err(error) => {
                        if let Some(unsaid) = UNREADABLE.allow() {
                            error!(%subscription, %error, unsaid, "outbox cannot be read; retrying");
                        }
                        tokio::time::sleep(Duration::from_millis(SLEEP_MS_MAX)).await;
                        None
                    }
                };
                LaneRows { tenant, subscription, asked, rows }
            });
        }
    }

    fn start(&mut self, tasks: &mut Tasks) {
        // Without a writable ledger, the result of an attempt could not be stored and the request would be sent again.
        if !self.usage.is_writable() {
            return;
        }
        let now = self.clock.now();
        while let Some(delivery) = self.lanes.take(now) {
            let attempter = self.attempter.clone();
            spawn(&self.clock, tasks, delivery.clone(), async move { attempter.attempt(delivery).await });
        }
    }

    /// Continues a delivery after a stage has ended.
    fn advance(&mut self, ended: Result<(DeliverySeq, Next), JoinError>, tasks: &mut Tasks) {
        let (seq, next) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                error!(%error, "task of a delivery was aborted; the delivery is due again after the next start");
                return;
            }
        };
        match next {
            Next::Send(filtered) => {
                // Its filters made it larger than estimated. If the additional bytes do not fit, it waits for them.
                let row = filtered.row();
                if self.lanes.grow(seq, row.bytes) {
                    let attempter = self.attempter.clone();
                    spawn(&self.clock, tasks, row, async move { attempter.send(*filtered).await });
                } else {
                    self.finish(seq, Some(row));
                }
            }
            Next::Settle(attempted) => {
                let transition = self.lanes.left(seq, attempted.consequences.endpoint, self.clock.now());
                self.report_breaker(transition);
                let row = attempted.delivery.clone();
                let attempter = self.attempter.clone();
                spawn(&self.clock, tasks, row, async move { attempter.settle(*attempted).await });
            }
            Next::Requeue(row) => self.finish(seq, Some(*row)),
            Next::Rest(unblocked) => {
                self.finish(seq, None);
                self.take_in(unblocked.into_iter().map(|row| *row).collect());
            }
        }
    }

    /// Ends the lease of a delivery. `again` is its row if it is due again.
    fn finish(&mut self, seq: DeliverySeq, again: Option<DueDelivery>) {
        let transition = self.lanes.done(seq, again, self.clock.now());
        self.report_breaker(transition);
    }

    fn take_rows(&mut self, answer: Result<LaneRows, JoinError>) {
        match answer {
            Ok(LaneRows { tenant, subscription, asked, rows }) => {
                self.lanes.answered(&tenant, subscription, asked, rows);
            }
            Err(error) => error!(%error, "query of the outbox was aborted"),
        }
    }

    fn report_breaker(&self, transition: Option<(EndpointKey, Transition)>) {
        let Some(((tenant, origin), transition)) = transition else { return };
        match transition {
            Transition::Opened(until) => {
                counter!(metric::BREAKER_OPENED, "tenant" => tenant.to_string()).increment(1);
                let open_ms = until.since(self.clock.now());
                warn!(%tenant, endpoint = %origin, open_ms,
                    "circuit breaker opened for endpoint; deliveries are queued until a probe succeeds");
            }
            Transition::Closed => {
                info!(%tenant, endpoint = %origin, "circuit breaker closed for endpoint; deliveries continue");
            }
        }
        self.count_breakers();
    }

    fn sleep(&self) -> Duration {
        if !self.usage.is_writable() {
            // A due delivery cannot start, so it is no reason to wake up.
            return Duration::from_millis(SLEEP_MS_MAX);
        }
        // A due delivery that a limit holds back starts when another one ends, so it is no reason to wake up early.
        let until_due = self.lanes.next_due().map_or(i64::MAX, |at| at.since(self.clock.now()).max(1));
        let wait_ms = until_due.unsigned_abs().min(SLEEP_MS_MAX);
        Duration::from_millis(wait_ms)
    }

    async fn drain(mut self, mut tasks: Tasks) {
        let in_flight = self.lanes.in_flight();
        if in_flight > 0 {
            info!(in_flight, "waiting for deliveries in flight");
        }
        tasks.queries.abort_all();
        let limit = Duration::from_millis(self.settings.now().drain_ms_max);
        let finish = async {
            while let Some(ended) = tasks.deliveries.join_next().await {
                self.advance(ended, &mut tasks);
            }
        };
        if tokio::time::timeout(limit, finish).await.is_err() {
            warn!(
                released = self.lanes.in_flight(),
                "deliveries in flight did not finish within `delivery.drain_ms_max`; they are due again after the next start"
            );
            tasks.deliveries.shutdown().await;
        }
    }
}

/// Spawns the next stage of a delivery. If it fails or panics, the delivery stays due.
fn spawn(
    clock: &Clock,
    tasks: &mut Tasks,
    row: DueDelivery,
    stage: impl Future<Output = Result<Next, setgate_ledger::Error>> + Send + 'static,
) {
    let clock = clock.clone();
    // Boxed, because the future of a whole attempt is large and is moved on spawning.
    let stage = Box::pin(stage);
    tasks.deliveries.spawn(async move {
        // A panic is a bug, but it must not occupy the delivery's slot forever.
        let why = match AssertUnwindSafe(stage).catch_unwind().await {
            Ok(Ok(next)) => return (row.seq, next),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "internal error, see the panic message on stderr".to_owned(),
        };
        error!(delivery = %row.id, why, "delivery could not be processed; it stays due");
        let due_at = clock.now().plus_millis(AFTER_FAILURE_MS);
        (row.seq, Next::requeue(DueDelivery { due_at, ..row }))
    });
}

fn bounds(settings: &Delivery) -> Bounds {
    Bounds {
        in_flight_max: settings.in_flight_max,
        per_tenant_max: settings.in_flight_per_tenant_max,
        per_endpoint_max: settings.in_flight_per_endpoint_max,
        bytes_max: settings.in_flight_bytes_max,
        bytes_per_tenant_max: settings.in_flight_bytes_per_tenant_max(),
        window_max: WINDOW_MAX,
        breaker: breaker_bounds(settings),
    }
}

fn breaker_bounds(settings: &Delivery) -> BreakerSettings {
    let millis = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    BreakerSettings {
        failures_max: settings.breaker_failures_max,
        open_ms: millis(BREAKER_OPEN_MS.min(settings.breaker_open_ms_max)),
        open_ms_max: millis(settings.breaker_open_ms_max),
        throttle_ms_max: millis(THROTTLE_S_MAX * 1_000),
    }
}

#[cfg(test)]
mod tests;
