//! Pins the current chain of a subscription, including the digests of its filters, so that every retry, restart and
//! replay runs the same plan.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use setgate_base::crypto;
use setgate_base::live::Live;
use setgate_domain::delivery::{NewDelivery, bytes_in_flight};
use setgate_domain::event::{Event, EventRecord, EventSeq, NewEvent};
use setgate_domain::filter::{Grant, Plan, PlanStep};
use setgate_domain::id::{DeliveryId, Digest, EventId, SubscriptionId, TenantId};
use setgate_domain::limits::CallLimits;
use setgate_domain::pacing::Ordering;
use setgate_domain::subscription::Subscription;
use setgate_domain::tenant::Quota;
use setgate_domain::time::Timestamp;
use setgate_ledger::{Plans, Registry, Snapshot, TenantView};
use setgate_sandbox::Sandbox;

use super::canary::{Choice, choices, put_in};

/// The chain as defined in `view`. It never fails, because one invalid chain must not block the journal for all others:
/// the plan is marked as broken instead.
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
    // A chain without lookups must keep its plan when a table changes.
    let tables = if looks_up {
        view.tables.iter().map(|(name, table)| (name.clone(), table.value.digest)).collect()
    } else {
        BTreeMap::new()
    };
    Plan { tenant, steps, limits: Some(limits), tables, broken: None }
}

/// Makes the plans of current chains. Cheap to clone.
#[derive(Clone)]
pub(super) struct Planner {
    registry: Registry,
    plans: Plans,
    /// Knows the largest limits that it can grant.
    sandbox: Sandbox,
    default_quota: Live<Quota>,
}

impl Planner {
    pub(super) fn new(registry: Registry, plans: Plans, sandbox: Sandbox, default_quota: Live<Quota>) -> Self {
        Self { registry, plans, sandbox, default_quota }
    }

    /// The current limits for a call of the tenant's filters on this host.
    fn limits_of(&self, view: &TenantView) -> CallLimits {
        let default = self.default_quota.now();
        let quota = view.tenant.value.quota_or(&default);
        self.sandbox.clamp_to_pool(CallLimits::from(quota))
    }

    /// The current chain as a plan. `None` if the tenant was removed.
    pub(super) fn plan_of(&self, subscription: &Subscription) -> Option<Plan> {
        let snapshot = self.registry.snapshot();
        snapshot.tenant(&subscription.tenant).map(|view| pin(subscription, view, self.limits_of(view)))
    }
}

/// The FIFO key of a delivery: a hash of its subject, if the subscription asks for ordering by subject. If two subjects
/// collide, they share one order, which is harmless.
fn order_key(subscription: &Subscription, subject: Option<&str>) -> Option<i64> {
    let subject = match subscription.pacing.ordering {
        Ordering::None => return None,
        Ordering::Subject => subject?,
    };
    let [a, b, c, d, e, f, g, h, ..] = crypto::sha256(subject.as_bytes());
    Some(i64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

/// The parts of an event that determine its delivery.
#[derive(Clone, Copy)]
pub(super) struct OfEvent<'a> {
    seq: EventSeq,
    id: EventId,
    about: Option<&'a str>,
    /// See [`NewDelivery::bytes`].
    bytes: u64,
}

/// The sequence number is assigned when the event is appended.
impl<'a> From<&'a NewEvent> for OfEvent<'a> {
    fn from(event: &'a NewEvent) -> Self {
        Self {
            seq: EventSeq::default(),
            id: event.id,
            about: event.subject.as_deref(),
            bytes: bytes_in_flight(event.set.text.len(), event.original.len()),
        }
    }
}

impl<'a> From<&'a Event> for OfEvent<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            seq: event.seq,
            id: event.id,
            about: event.subject.as_deref(),
            bytes: bytes_in_flight(event.set.text.len(), event.original.len()),
        }
    }
}

impl<'a> From<&'a EventRecord> for OfEvent<'a> {
    fn from(event: &'a EventRecord) -> Self {
        Self { seq: event.seq, id: event.id, about: event.subject.as_deref(), bytes: 0 }
    }
}

/// Cache of the current plans by tenant, subscription and canary choices, so that a plan is pinned once per
/// configuration change instead of once per event.
pub(super) struct PinnedPlans {
    planner: Planner,
    tenants: Mutex<HashMap<TenantId, OfTenant>>,
}

struct OfTenant {
    /// The view of the registry that the plans were made from.
    view: Arc<TenantView>,
    /// Version of the settings, because plans contain the limits of a call.
    default_quota: u64,
    plans: HashMap<Key, Digest>,
}

/// A subscription and the steps of its chain that run a candidate.
type Key = (SubscriptionId, Vec<Choice>);

impl OfTenant {
    fn is_of(&self, view: &Arc<TenantView>, default_quota: u64) -> bool {
        Arc::ptr_eq(&self.view, view) && self.default_quota == default_quota
    }
}

/// A delivery to be created.
pub(super) struct Wanted<'a> {
    pub(super) view: &'a Arc<TenantView>,
    pub(super) subscription: &'a Subscription,
    pub(super) event: OfEvent<'a>,
}

impl PinnedPlans {
    /// An empty cache.
    pub(super) fn new(planner: Planner) -> Self {
        Self { planner, tenants: Mutex::default() }
    }

    /// The deliveries, due at `now`, each with the chain of its view. Plans that are not in the cache are stored in a
    /// single request.
    pub(super) async fn deliveries(
        &self,
        wanted: Vec<Wanted<'_>>,
        now: Timestamp,
    ) -> Result<Vec<NewDelivery>, setgate_ledger::Error> {
        let of = wanted.iter().map(|Wanted { view, subscription, event }| {
            (*view, *subscription, choices(subscription, view, event.about, event.id))
        });
        let plans = self.plans_of(of.collect()).await?;
        let delivery = |(Wanted { view, subscription, event }, plan): (Wanted<'_>, Digest)| NewDelivery {
            id: DeliveryId { event: event.id, subscription: subscription.id, run: 0 },
            event: event.seq,
            tenant: view.tenant.value.id.clone(),
            plan,
            due_at: now,
            order_key: order_key(subscription, event.about),
            bytes: event.bytes,
        };
        Ok(wanted.into_iter().zip(plans).map(delivery).collect())
    }

    /// The plans of these subscriptions with these choices, in the same order.
    pub(super) async fn plans_of(
        &self,
        of: Vec<(&Arc<TenantView>, &Subscription, Vec<Choice>)>,
    ) -> Result<Vec<Digest>, setgate_ledger::Error> {
        // Read before the limits: if the default quota changes in between, the entry is outdated and the plan is pinned
        // again.
        let default_quota = self.planner.default_quota.version();
        let (keys, mut digests): (Vec<_>, Vec<_>) = {
            let tenants = self.lock();
            let known = of.into_iter().map(|(view, subscription, choices)| {
                let key = (subscription.id, choices);
                let of = tenants.get(&view.tenant.value.id).filter(|of| of.is_of(view, default_quota));
                let digest = of.and_then(|of| of.plans.get(&key).copied());
                ((view, subscription, key), digest)
            });
            known.unzip()
        };
        let unknown: Vec<_> = keys.into_iter().zip(&mut digests).filter(|(_, digest)| digest.is_none()).collect();
        if !unknown.is_empty() {
            let pinned = |((view, subscription, (_, choices)), _): &((&Arc<TenantView>, &Subscription, Key), _)| {
                let mut plan = pin(subscription, view, self.planner.limits_of(view));
                put_in(&mut plan, choices);
                plan
            };
            let plans: Vec<Plan> = unknown.iter().map(pinned).collect();
            let stored = self.planner.plans.intern_all(&plans).await?;
            let mut tenants = self.lock();
            for (((view, _, key), digest), stored) in unknown.into_iter().zip(stored) {
                let empty = || OfTenant { view: view.clone(), default_quota, plans: HashMap::new() };
                let of = tenants.entry(view.tenant.value.id.clone()).or_insert_with(empty);
                if !of.is_of(view, default_quota) {
                    *of = empty();
                }
                of.plans.insert(key, stored);
                *digest = Some(stored);
            }
        }
        Ok(digests.into_iter().flatten().collect())
    }

    /// Removes the plans of tenants that no longer exist.
    pub(super) fn keep(&self, snapshot: &Snapshot) {
        self.lock().retain(|tenant, _| snapshot.tenant(tenant).is_some());
    }

    /// Removes a plan that is no longer stored.
    pub(super) fn forget(&self, plan: &Digest) {
        for of in self.lock().values_mut() {
            of.plans.retain(|_, digest| digest != plan);
        }
    }

    /// Removes all plans of a tenant, because one of them may no longer be stored.
    pub(super) fn forget_all_of(&self, tenant: &TenantId) {
        self.lock().remove(tenant);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, OfTenant>> {
        // No code can panic between two dependent changes, so a poisoned lock still guards consistent data.
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
