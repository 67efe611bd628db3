//! Drives events through their whole life cycle in a ledger: appended, fanned out to one subscription, settled as
//! delivered.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use setgate_base::clock::Clock;
use setgate_domain::attempt::{Attempt, Connection, HttpVersion, Outcome, SentRequest};
use setgate_domain::delivery::{DueDelivery, NewDelivery, Settlement, Step, bytes_in_flight};
use setgate_domain::event::{Dedupe, EventSeq, NewEvent};
use setgate_domain::filter::Plan;
use setgate_domain::id::{DeliveryId, Digest, EventId, SubscriptionId, TenantId};
use setgate_domain::set::SetToken;
use setgate_domain::tenant::Tenant;
use setgate_domain::verdict::{FilterRun, VerdictKind};
use setgate_ledger::{Appended, Ledger, NewDue, Options, Precondition};
use tokio::task::JoinSet;

use super::EVENT_BYTES;
use crate::events::{Template, jti};

/// Events per transaction; at most a batch of the writer.
const TOGETHER: u64 = 256;

/// A ledger with one tenant, and the template of its events. Clones share it.
#[derive(Clone)]
pub(super) struct Lives(Arc<Inner>);

struct Inner {
    ledger: Ledger,
    clock: Clock,
    template: Template,
    tenant: TenantId,
    subscription: SubscriptionId,
    plan: Digest,
    /// The number of the next event.
    next: AtomicU64,
}

impl Lives {
    /// A new ledger in that directory, with a host's settings.
    pub(super) async fn new(folder: &Path) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let ledger = Ledger::open(Options::new(folder), clock.clone()).context("a new ledger")?;
        let tenant: TenantId = "bench".parse()?;
        let made =
            Tenant { id: tenant.clone(), display_name: None, quota: None, issuer: None, created_at: clock.now() };
        ledger.registry.put_tenant(made, Precondition::Any).await?;
        let plan = ledger.plans.intern(&Plan::default()).await?;
        let subscription = SubscriptionId::new(clock.now(), 1);
        Ok(Self::of(ledger, clock, tenant, subscription, plan, 0))
    }

    /// The ledger of a stopped host. Appends events from number `first` on to one of its subscriptions, modelled on one
    /// of its due deliveries.
    pub(super) async fn of_host(data: &Path, subscription: &str, first: u64) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let ledger = Ledger::open(Options::new(data.join("ledger")), clock.clone()).context("the host's ledger")?;
        let subscription: SubscriptionId = subscription.parse()?;
        let lane = ledger.deliveries.due_summary().await?.into_iter().find(|due| due.subscription == subscription);
        let tenant = lane.context("the subscription has no delivery that is due")?.tenant;
        let due = ledger.deliveries.due(&tenant, subscription, clock.now(), None, 1).await?;
        let DueDelivery { plan, .. } = due.into_iter().next().context("no delivery of the subscription is due yet")?;
        Ok(Self::of(ledger, clock, tenant, subscription, plan, first))
    }

    fn of(
        ledger: Ledger,
        clock: Clock,
        tenant: TenantId,
        subscription: SubscriptionId,
        plan: Digest,
        first: u64,
    ) -> Self {
        let template = Template::of(EVENT_BYTES);
        Self(Arc::new(Inner { ledger, clock, template, tenant, subscription, plan, next: AtomicU64::new(first) }))
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Bytes of one event in the journal: the original and the SET.
    pub(super) fn event_bytes(&self) -> anyhow::Result<usize> {
        let NewEvent { set, original, .. } = self.0.event(0)?;
        Ok(set.text.len() + original.len())
    }

    /// Appends one more event and returns once it is durable.
    pub(super) async fn append(&self) -> anyhow::Result<()> {
        let event = self.0.event(self.0.next.fetch_add(1, Ordering::Relaxed))?;
        match self.0.ledger.events.append(event).await.context("an append")? {
            Appended::New(_) => Ok(()),
            known => bail!("an event that is new was answered {known:?}"),
        }
    }

    /// Appends events with their deliveries, and leaves these due.
    pub(super) async fn pend(&self, events: u64) -> anyhow::Result<()> {
        for together in chunks(events) {
            self.make(together).await?;
        }
        Ok(())
    }

    /// Appends events with their deliveries, and settles these.
    pub(super) async fn live(&self, events: u64) -> anyhow::Result<()> {
        for together in chunks(events) {
            let mut settling = JoinSet::new();
            for due in self.make(together).await? {
                let (ledger, settlement) = (self.0.ledger.clone(), self.0.settlement(&due)?);
                settling.spawn(async move { ledger.deliveries.settle(settlement).await });
            }
            while let Some(settled) = settling.join_next().await {
                settled?.context("a settlement")?;
            }
        }
        Ok(())
    }

    /// Appends events with one delivery each, as a host does (decision 0024).
    async fn make(&self, events: u64) -> anyhow::Result<Vec<DueDelivery>> {
        let mut appending = JoinSet::new();
        for _ in 0..events {
            let lives = self.clone();
            appending.spawn(async move { lives.append_with_delivery().await });
        }
        while let Some(appended) = appending.join_next().await {
            appended??;
        }
        let NewDue { due, on_disk } = self.0.ledger.deliveries.take_new();
        ensure!(
            due.len() as u64 == events && on_disk.is_empty(),
            "of {events} events, {} deliveries were dispatched",
            due.len()
        );
        Ok(due)
    }

    async fn append_with_delivery(&self) -> anyhow::Result<()> {
        let event = self.0.event(self.0.next.fetch_add(1, Ordering::Relaxed))?;
        let delivery = NewDelivery {
            id: DeliveryId { event: event.id, subscription: self.0.subscription, run: 0 },
            // Assigned when the event is appended.
            event: EventSeq::default(),
            tenant: self.0.tenant.clone(),
            plan: self.0.plan,
            due_at: self.0.clock.now(),
            order_key: None,
            bytes: bytes_in_flight(event.set.text.len(), event.original.len()),
        };
        let taken = self.0.ledger.events.append_with(event, vec![delivery]).await.context("an append")?;
        ensure!(taken.fanned_out, "an event that is new was answered {taken:?}");
        Ok(())
    }
}

impl Inner {
    /// A SET of WSO2 Identity Server as the host stores it. The original `iat` is in milliseconds.
    fn event(&self, number: u64) -> anyhow::Result<NewEvent> {
        let original = self.template.event(number);
        let text = original.replacen("\"iat\":1789977600000", "\"iat\":1789977600", 1);
        ensure!(text != original, "an event has its `iat` in milliseconds");
        let accepted_at = self.clock.now();
        Ok(NewEvent {
            id: EventId::new(accepted_at, (u128::from(scatter(number)) << 64) | u128::from(number)),
            tenant: self.tenant.clone(),
            source: "idp".parse()?,
            set: SetToken {
                text,
                issuer: "https://is.example.com/t/example.com".to_owned(),
                jti: jti(number),
                issued_at: 1_789_977_600,
                types: vec!["https://schemas.identity.wso2.org/events/login/event-type/loginSuccess".to_owned()],
            },
            subject: Some("b70274cf-c7ba-4ac7-a064-2cfbd5a6724f".to_owned()),
            original: Bytes::from(original),
            content_type: "application/json".to_owned(),
            accepted_at,
            dedupe: Dedupe { key: digest(number), body: digest(!number), window_ms: None },
            trace: None,
        })
    }

    /// Settles a delivery that passed one filter and was accepted by the receiver.
    fn settlement(&self, due: &DueDelivery) -> anyhow::Result<Settlement> {
        let at = self.clock.now();
        let outcome = Outcome::status(204);
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let sent = SentRequest {
            url: "http://127.0.0.1:40000/".to_owned(),
            headers: vec![
                header("webhook-id", &due.id.to_string()),
                header("webhook-timestamp", "1789977600"),
                header("webhook-signature", "***"),
                header("content-type", "application/secevent+json"),
            ],
            body_digest: Digest(digest(due.seq.0.cast_unsigned())),
            body_bytes: EVENT_BYTES as u64,
        };
        let peer = Some("127.0.0.1:40000".to_owned());
        let attempt = Attempt {
            number: 1,
            at,
            latency_us: 300,
            outcome,
            signed_with: vec![],
            set: None,
            sent: Some(sent),
            connection: Some(Connection { http: HttpVersion::Http1, peer, proxied: false }),
        };
        let run = FilterRun {
            verdict: Some(VerdictKind::Pass),
            fuel: 40_000,
            memory_bytes: 1 << 20,
            elapsed_us: 40,
            ..FilterRun::not_called("drop-by-type".parse()?, Digest([3; 32]))
        };
        Ok(Settlement { passed: vec![run], ..Settlement::new(due.seq, at, Step::Delivered { attempt }) })
    }
}

fn chunks(events: u64) -> impl Iterator<Item = u64> {
    (0..events).step_by(TOGETHER as usize).map(move |from| TOGETHER.min(events - from))
}

/// Replaces SHA-256: like a hash, the result is in no order, so that index inserts are random.
fn digest(of: u64) -> [u8; 32] {
    let mut digest = [0; 32];
    let mut state = of;
    for part in digest.chunks_exact_mut(8) {
        state = scatter(state);
        part.copy_from_slice(&state.to_be_bytes());
    }
    digest
}

/// `splitmix64`: a bijection of numbers.
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_events_share_a_key() {
        let keys: std::collections::BTreeSet<_> = (0..10_000).map(digest).collect();
        assert_eq!(keys.len(), 10_000);
        assert_eq!(chunks(600).collect::<Vec<_>>(), [256, 256, 88]);
    }

    #[tokio::test]
    async fn events_live_to_their_end_and_pending_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let lives = Lives::new(folder.path()).await.unwrap();
        lives.live(300).await.unwrap();
        assert_eq!(lives.ledger().usage.backlog(&lives.0.tenant), 0);
        lives.pend(40).await.unwrap();
        assert_eq!(lives.ledger().usage.backlog(&lives.0.tenant), 40);
        assert_eq!(lives.ledger().usage.stats().last, EventSeq(340));
        // The number of appends that share a commit depends on the machine, but a chunk is appended before it is
        // settled.
        assert!(lives.ledger().usage.stats().commits >= 5, "two for each of two chunks, one for the third");
        lives.ledger().shutdown().await;
    }
}
