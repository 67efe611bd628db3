//! Memory budget for bodies of requests or responses: a limit for the host, and a share of it that one tenant may use.
//! Bodies that belong to no tenant, such as the operator's, have a share like a tenant's.
//!
//! Without the share, a few hundred slow requests for one tenant would make the host answer every other tenant 503.

use std::sync::Arc;

use setgate_base::fair::TenantSemaphores;
use setgate_domain::id::TenantId;
use setgate_domain::page::PAGE_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::listener::Peer;
use super::problem::{Code, Problem};
use crate::http::listener::settings::Listen;

/// A client may use at most 1/`CLIENTS_MIN` of a share with incomplete bodies, so that at least this many clients fit.
const CLIENTS_MIN: usize = 2;

/// Bytes of management request bodies, mostly uploads, in memory; a request beyond it is answered 503.
const UPLOADS_BYTES_MAX: u32 = 96 << 20;
/// The share of [`UPLOADS_BYTES_MAX`] that one tenant may use; a request beyond it is answered 429.
const UPLOADS_BYTES_PER_TENANT_MAX: u32 = 32 << 20;
/// Bytes of management responses in memory that clients have not read yet; a request beyond it is answered 503.
const RESPONSES_BYTES_MAX: u32 = 32 << 20;
/// The share of [`RESPONSES_BYTES_MAX`] that one tenant may use; a request beyond it is answered 429.
const RESPONSES_BYTES_PER_TENANT_MAX: u32 = 8 << 20;
/// One page of a list, and the start of another.
const _: () = assert!(RESPONSES_BYTES_PER_TENANT_MAX as usize >= 2 * PAGE_BYTES_MAX);

/// A memory budget with one permit per byte.
pub struct BodyBudget {
    all: Arc<Semaphore>,
    shares: TenantSemaphores,
    /// The share of bodies without a tenant.
    no_tenants: Arc<Semaphore>,
    /// Limits of one client's incomplete bodies, per tenant.
    of_client: TenantSemaphores<(Option<TenantId>, Peer)>,
    /// Limit of one client's incomplete bodies, in the whole budget.
    of_client_in_all: TenantSemaphores<Peer>,
    /// Explains the share of one tenant in its 429.
    share_name: &'static str,
}

/// Bytes taken from the budget, returned on drop.
#[derive(Debug)]
pub(super) struct Taken {
    share: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
    /// The client's part, while its body is incomplete.
    client: Option<[OwnedSemaphorePermit; 2]>,
}

impl BodyBudget {
    /// For event bodies.
    pub fn for_events(settings: &Listen) -> Self {
        Self::new(
            settings.bodies_bytes_max,
            settings.bodies_bytes_per_tenant_max(),
            "a quarter of `listen.bodies_bytes_max`",
        )
    }

    /// For the bodies of management requests.
    pub fn for_uploads() -> Self {
        Self::new(UPLOADS_BYTES_MAX, UPLOADS_BYTES_PER_TENANT_MAX, "the limit per tenant for requests")
    }

    /// For management responses.
    pub fn for_responses() -> Self {
        Self::new(
            RESPONSES_BYTES_MAX,
            RESPONSES_BYTES_PER_TENANT_MAX,
            "the limit per tenant for responses that are not read yet",
        )
    }

    /// A budget of `bytes_max`, of which one tenant may use `per_tenant_max`; `share_name` explains the latter in its
    /// 429.
    pub fn new(bytes_max: u32, per_tenant_max: u32, share_name: &'static str) -> Self {
        Self {
            all: Arc::new(Semaphore::new(bytes_max as usize)),
            shares: TenantSemaphores::new(per_tenant_max as usize),
            no_tenants: Arc::new(Semaphore::new(per_tenant_max as usize)),
            of_client: TenantSemaphores::new(per_tenant_max as usize / CLIENTS_MIN),
            of_client_in_all: TenantSemaphores::new(bytes_max as usize / CLIENTS_MIN),
            share_name,
        }
    }

    /// Takes `bytes` from the budget, or fails immediately.
    ///
    /// # Errors
    /// 429 if the tenant's share is used up, 503 if the host's budget is; code `busy`.
    pub(super) fn take(&self, tenant: Option<&TenantId>, bytes: usize) -> Result<Taken, Problem> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let share = self.share_of(tenant).try_acquire_many_owned(permits);
        let share = share.map_err(|_| self.share_is_taken(tenant))?;
        let all = self.all.clone().try_acquire_many_owned(permits).map_err(|_| Self::is_taken())?;
        Ok(Taken { share, all, client: None })
    }

    /// Like [`BodyBudget::take`], but takes at most a whole share, so that it never fails because of the size alone.
    pub(super) fn take_at_most(&self, tenant: Option<&TenantId>, bytes: usize) -> Result<Taken, Problem> {
        self.take(tenant, bytes.min(self.shares.permits()))
    }

    /// Takes more bytes for a body.
    pub(super) fn grow(&self, taken: &mut Taken, tenant: Option<&TenantId>, bytes: usize) -> Result<(), Problem> {
        let Taken { share, all, .. } = self.take(tenant, bytes)?;
        taken.share.merge(share);
        taken.all.merge(all);
        Ok(())
    }

    /// Charges the client for all bytes of an incomplete body. Otherwise a client without a key could use up the whole
    /// share of a tenant by sending bodies without their ends.
    pub(super) fn charge_client(
        &self,
        taken: &mut Taken,
        tenant: Option<&TenantId>,
        client: Peer,
    ) -> Result<(), Problem> {
        let charged = taken.client.as_ref().map_or(0, |[permit, _]| permit.num_permits());
        // A body larger than the client's limit takes all of it.
        let most = self.of_client.permits().min(self.of_client_in_all.permits());
        let more = taken.share.num_permits().min(most).saturating_sub(charged);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let of_tenant = self.of_client.get(&(tenant.cloned(), client)).try_acquire_many_owned(more);
        let of_all = self.of_client_in_all.get(&client).try_acquire_many_owned(more);
        let (Ok(of_tenant), Ok(of_all)) = (of_tenant, of_all) else { return Err(Self::client_has_its_share()) };
        match &mut taken.client {
            None => taken.client = Some([of_tenant, of_all]),
            Some([before, before_in_all]) => {
                before.merge(of_tenant);
                before_in_all.merge(of_all);
            }
        }
        Ok(())
    }

    fn client_has_its_share() -> Problem {
        let detail = "incomplete request bodies of this client use half of the memory budget: complete them, or retry \
                      later";
        Problem::new(Code::Busy, detail)
    }

    /// Whether `bytes` are available now, to refuse a request before any work is done.
    pub(super) fn check(&self, tenant: Option<&TenantId>, bytes: usize) -> Result<(), Problem> {
        self.take_at_most(tenant, bytes).map(drop)
    }

    /// Waits until `bytes` are available.
    pub(super) async fn wait(&self, tenant: Option<&TenantId>, bytes: usize) -> Option<Taken> {
        let permits = u32::try_from(bytes.min(self.shares.permits())).unwrap_or(u32::MAX);
        let share = self.share_of(tenant).acquire_many_owned(permits).await.ok()?;
        let all = self.all.clone().acquire_many_owned(permits).await.ok()?;
        Some(Taken { share, all, client: None })
    }

    fn share_of(&self, tenant: Option<&TenantId>) -> Arc<Semaphore> {
        tenant.map_or_else(|| self.no_tenants.clone(), |tenant| self.shares.get(tenant))
    }

    fn share_is_taken(&self, tenant: Option<&TenantId>) -> Problem {
        let whose = tenant.map_or_else(|| "no tenant".to_owned(), |tenant| format!("tenant `{tenant}`"));
        let (name, limit) = (self.share_name, self.shares.permits());
        let detail =
            format!("bodies of {whose} use {limit} bytes of memory, {name}: complete or read them, or retry later");
        Problem::new(Code::Busy, detail)
    }

    fn is_taken() -> Problem {
        let detail = "the memory budget of the host for bodies is used up: retry later";
        Problem::host_busy(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (TenantId, TenantId) {
        ("busy".parse().unwrap(), "other".parse().unwrap())
    }

    #[test]
    fn one_tenant_can_take_its_share_and_no_more() {
        let budget = BodyBudget::new(100, 60, "x_max");
        let (busy, other) = names();
        let held = budget.take(Some(&busy), 60).unwrap();
        let over = budget.take(Some(&busy), 1).unwrap_err();
        assert!(format!("{over:?}").contains("x_max"), "the setting is named: {over:?}");
        let _others = budget.take(Some(&other), 40).unwrap();
        assert!(budget.take(None, 1).is_err(), "the host's budget is taken");
        drop(held);
        assert!(budget.take(Some(&busy), 60).is_ok());
        assert!(budget.take(None, 60).is_ok());
        assert!(budget.take(None, 61).is_err(), "what is no tenant's has a share as well");
    }

    #[test]
    fn one_client_takes_half_of_a_share_with_bodies_that_it_does_not_end() {
        let budget = BodyBudget::new(100, 60, "x_max");
        let (busy, other) = names();
        let [one, two] = ["192.0.2.1", "192.0.2.2"].map(|ip| Peer::from(ip.parse::<std::net::IpAddr>().unwrap()));
        let mut held = budget.take(Some(&busy), 20).unwrap();
        budget.charge_client(&mut held, Some(&busy), one).unwrap();
        budget.grow(&mut held, Some(&busy), 10).unwrap();
        budget.charge_client(&mut held, Some(&busy), one).unwrap();
        let mut over = budget.take(Some(&busy), 1).unwrap();
        assert!(budget.charge_client(&mut over, Some(&busy), one).is_err());
        assert!(budget.charge_client(&mut over, Some(&busy), two).is_ok(), "another client is not concerned");
        let mut elsewhere = budget.take(Some(&other), 21).unwrap();
        assert!(budget.charge_client(&mut elsewhere, Some(&other), one).is_err(), "half of the host's budget");
        drop((held, over));
        assert!(budget.charge_client(&mut elsewhere, Some(&other), one).is_ok());
        let mut large = budget.take(Some(&busy), 60).unwrap();
        assert!(budget.charge_client(&mut large, Some(&busy), two).is_ok(), "one by itself may be larger");
    }

    #[test]
    fn what_grows_is_charged_for_what_it_has() {
        let budget = BodyBudget::new(100, 60, "x_max");
        let (busy, other) = names();
        let mut held = budget.take(Some(&busy), 0).unwrap();
        assert!(budget.take(Some(&busy), 60).is_ok(), "nothing is charged yet");
        budget.grow(&mut held, Some(&busy), 50).unwrap();
        assert!(budget.grow(&mut held, Some(&busy), 11).is_err());
        assert!(budget.check(Some(&busy), 10).is_ok() && budget.check(Some(&busy), 11).is_err());
        assert!(budget.take_at_most(Some(&other), 1_000).is_err(), "of the host 50 are left");
        drop(held);
        assert!(budget.take_at_most(Some(&other), 1_000).is_ok());
    }
}
