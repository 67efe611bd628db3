//! Room in memory for bodies: so many bytes for the host, and of them a share that one tenant can take at the most.
//!
//! Without the share, whoever opens a few hundred slow requests for one tenant would have every other tenant's answered 503.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::domain::id::TenantId;
use crate::fair::Shares;

/// Bytes of bodies, one permit each.
pub struct Room {
    all: Arc<Semaphore>,
    shares: Shares,
    /// The key of the share in the configuration.
    share_name: &'static str,
}

/// Bytes taken, until dropped.
pub(super) struct Taken {
    _share: Option<OwnedSemaphorePermit>,
    _all: OwnedSemaphorePermit,
}

impl Room {
    /// Room for `bytes_max` bytes, of them `per_tenant_max` for one tenant, which is the setting `share_name`.
    pub fn new(bytes_max: u32, per_tenant_max: u32, share_name: &'static str) -> Self {
        let all = Arc::new(Semaphore::new(bytes_max as usize));
        Self { all, shares: Shares::new(per_tenant_max as usize), share_name }
    }

    /// Takes room for `bytes`, at once or not at all; for no tenant: of the host's alone.
    ///
    /// # Errors
    /// 429 where the tenant's share is taken, 503 where the host's room is; code `busy`, nothing was read.
    pub(super) fn take(&self, tenant: Option<&TenantId>, bytes: u32) -> Result<Taken, Problem> {
        let share = match tenant.map(|tenant| (tenant, self.shares.of(tenant))) {
            None => None,
            Some((tenant, share)) => Some(share.try_acquire_many_owned(bytes).map_err(|_| {
                let (name, limit) = (self.share_name, self.shares.permits());
                let detail =
                    format!("what is under way for `{tenant}` takes its share, `{name}` ({limit}): try again later");
                Problem::busy(StatusCode::TOO_MANY_REQUESTS, "busy", detail)
            })?),
        };
        let all = self.all.clone().try_acquire_many_owned(bytes).map_err(|_| {
            let detail = "the host has as many bodies in memory as it has room for: try again later";
            Problem::busy(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
        })?;
        Ok(Taken { _share: share, _all: all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_can_take_its_share_and_no_more() {
        let room = Room::new(100, 60, "x_max");
        let (busy, other): (TenantId, TenantId) = ("busy".parse().unwrap(), "other".parse().unwrap());
        let held = room.take(Some(&busy), 60).unwrap_or_else(|problem| panic!("{problem:?}"));
        let over = room.take(Some(&busy), 1).err().expect("its share is taken");
        assert!(format!("{over:?}").contains("x_max"), "the setting is named: {over:?}");
        let _others = room.take(Some(&other), 40).unwrap_or_else(|problem| panic!("{problem:?}"));
        assert!(room.take(None, 1).is_err(), "the host's room is taken");
        drop(held);
        assert!(room.take(Some(&busy), 60).is_ok());
        assert!(room.take(None, 60).is_ok());
    }
}
