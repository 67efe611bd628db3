//! Pinning: the chain of a subscription as it is now, down to the digests, so that every retry, restart and replay
//! runs just that.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::crypto;
use crate::domain::delivery::NewDelivery;
use crate::domain::event::{Event, EventRecord, EventSeq, NewEvent};
use crate::domain::filter::{Grant, Plan, PlanStep};
use crate::domain::id::{DeliveryId, Digest, EventId, SubscriptionId, TenantId};
use crate::domain::limits::CallLimits;
use crate::domain::pacing::Ordering;
use crate::domain::subscription::Subscription;
use crate::domain::time::Timestamp;
use crate::ledger::{self, Snapshot, TenantView};

use super::Pipeline;
use super::canary::{Choice, choices, put_in};

/// The chain as it is in `view`. Never fails: one bad chain must not stop the journal for all others.
fn pin(subscription: &Subscription, view: &TenantView, limits: CallLimits) -> Plan {
    let tenant = Some(view.tenant.value.id.clone());
    let mut steps = Vec::with_capacity(subscription.chain.len());
    let mut looks_up = false;
    for binding in &subscription.chain {
        let active = view.filters.get(&binding.filter).and_then(|filter| filter.value.active);
        let Some(digest) = active else {
            let broken = Some(format!("the filter `{}` has no active version", binding.filter));
            return Plan { tenant, broken, ..Plan::default() };
        };
        looks_up |= binding.grants.contains(&Grant::Lookup);
        steps.push(PlanStep { binding: binding.clone(), digest });
    }
    // A chain that looks nothing up does not change when a table does.
    let tables = if looks_up {
        view.tables.iter().map(|(name, table)| (name.clone(), table.value.digest)).collect()
    } else {
        BTreeMap::new()
    };
    Plan { tenant, steps, limits: Some(limits), tables, broken: None }
}

impl Pipeline {
    /// What a call of the tenant's filters may use at this host now.
    fn limits_of(&self, view: &TenantView) -> CallLimits {
        let settings = self.settings.now();
        let quota = view.tenant.value.quota.as_ref().unwrap_or(&settings.quota);
        self.sandbox.within_pool(CallLimits::from(quota))
    }

    /// The chain as it is now; none where the tenant is gone.
    pub(super) fn pinned_now(&self, subscription: &Subscription) -> Option<Plan> {
        let snapshot = self.ledger.snapshot();
        snapshot.tenant(&subscription.tenant).map(|view| pin(subscription, view, self.limits_of(view)))
    }
}

/// What a delivery must not overtake others with: its subject, where the subscription asks for that. Two subjects that
/// come to the same key wait for each other, which is harmless.
fn order_key(subscription: &Subscription, subject: Option<&str>) -> Option<i64> {
    let subject = match subscription.pacing.ordering {
        Ordering::None => return None,
        Ordering::Subject => subject?,
    };
    let [a, b, c, d, e, f, g, h, ..] = crypto::sha256(subject.as_bytes());
    Some(i64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

/// What of an event decides which delivery is made of it.
#[derive(Clone, Copy)]
pub(super) struct OfEvent<'a> {
    seq: EventSeq,
    id: EventId,
    about: Option<&'a str>,
}

/// Its place is known once it is appended.
impl<'a> From<&'a NewEvent> for OfEvent<'a> {
    fn from(event: &'a NewEvent) -> Self {
        Self { seq: EventSeq::default(), id: event.id, about: event.subject.as_deref() }
    }
}

impl<'a> From<&'a Event> for OfEvent<'a> {
    fn from(event: &'a Event) -> Self {
        Self { seq: event.seq, id: event.id, about: event.subject.as_deref() }
    }
}

impl<'a> From<&'a EventRecord> for OfEvent<'a> {
    fn from(event: &'a EventRecord) -> Self {
        Self { seq: event.seq, id: event.id, about: event.subject.as_deref() }
    }
}

/// Plans in force, by tenant, subscription and what of its chain runs a candidate, so that a plan is pinned once per change of
/// its tenant's and not once per event.
#[derive(Default)]
pub(crate) struct Pinned(Mutex<HashMap<TenantId, OfTenant>>);

/// The plans of one tenant.
struct OfTenant {
    /// What of the registry they are of.
    view: Arc<TenantView>,
    /// The settings' version: plans have the limits of a call in them.
    settings: u64,
    plans: HashMap<Key, Digest>,
}

/// A subscription, and what of its chain runs a candidate.
type Key = (SubscriptionId, Vec<Choice>);

impl OfTenant {
    fn is_of(&self, view: &Arc<TenantView>, settings: u64) -> bool {
        Arc::ptr_eq(&self.view, view) && self.settings == settings
    }
}

/// A delivery that is to be made.
pub(super) struct Wanted<'a> {
    pub(super) view: &'a Arc<TenantView>,
    pub(super) subscription: &'a Subscription,
    pub(super) event: OfEvent<'a>,
}

impl Pinned {
    /// The deliveries, due `now`, each with the chain as it is in its view. What of their plans is not known yet is stored,
    /// all in one request.
    pub(super) async fn deliveries(
        &self,
        pipeline: &Pipeline,
        wanted: Vec<Wanted<'_>>,
        now: Timestamp,
    ) -> Result<Vec<NewDelivery>, ledger::Error> {
        let of = wanted.iter().map(|Wanted { view, subscription, event }| {
            (*view, *subscription, choices(subscription, view, event.about, event.id))
        });
        let plans = self.plans_of(pipeline, of.collect()).await?;
        let delivery = |(Wanted { view, subscription, event }, plan): (Wanted<'_>, Digest)| NewDelivery {
            id: DeliveryId { event: event.id, subscription: subscription.id, run: 0 },
            event: event.seq,
            tenant: view.tenant.value.id.clone(),
            plan,
            due_at: now,
            order_key: order_key(subscription, event.about),
        };
        Ok(wanted.into_iter().zip(plans).map(delivery).collect())
    }

    /// The plans of subscriptions' chains with those choices, in the same order.
    pub(super) async fn plans_of(
        &self,
        pipeline: &Pipeline,
        of: Vec<(&Arc<TenantView>, &Subscription, Vec<Choice>)>,
    ) -> Result<Vec<Digest>, ledger::Error> {
        // Taken before the limits are: settings that change in between make it pinned anew.
        let settings = pipeline.settings.version();
        let (keys, mut digests): (Vec<_>, Vec<_>) = {
            let tenants = self.lock();
            let known = of.into_iter().map(|(view, subscription, choices)| {
                let key = (subscription.id, choices);
                let of = tenants.get(&view.tenant.value.id).filter(|of| of.is_of(view, settings));
                let digest = of.and_then(|of| of.plans.get(&key).copied());
                ((view, subscription, key), digest)
            });
            known.unzip()
        };
        let unknown: Vec<_> = keys.into_iter().zip(&mut digests).filter(|(_, digest)| digest.is_none()).collect();
        if !unknown.is_empty() {
            let pinned = |((view, subscription, (_, choices)), _): &((&Arc<TenantView>, &Subscription, Key), _)| {
                let mut plan = pin(subscription, view, pipeline.limits_of(view));
                put_in(&mut plan, choices);
                plan
            };
            let plans: Vec<Plan> = unknown.iter().map(pinned).collect();
            let stored = pipeline.ledger.intern_plans(&plans).await?;
            let mut tenants = self.lock();
            for (((view, _, key), digest), stored) in unknown.into_iter().zip(stored) {
                let empty = || OfTenant { view: view.clone(), settings, plans: HashMap::new() };
                let of = tenants.entry(view.tenant.value.id.clone()).or_insert_with(empty);
                if !of.is_of(view, settings) {
                    *of = empty();
                }
                of.plans.insert(key, stored);
                *digest = Some(stored);
            }
        }
        Ok(digests.into_iter().flatten().collect())
    }

    /// Forgets the plans of tenants that are not there any more.
    pub(super) fn keep(&self, snapshot: &Snapshot) {
        self.lock().retain(|tenant, _| snapshot.tenant(tenant).is_some());
    }

    /// Forgets a plan: it is not stored any more.
    pub(super) fn forget(&self, plan: &Digest) {
        for of in self.lock().values_mut() {
            of.plans.retain(|_, digest| digest != plan);
        }
    }

    /// Forgets all plans of a tenant: one of them may not be stored any more.
    pub(super) fn forget_all_of(&self, tenant: &TenantId) {
        self.lock().remove(tenant);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, OfTenant>> {
        // Whole at each instant: a poisoned lock is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
