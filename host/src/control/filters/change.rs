//! The steps that all changes of a stored filter share.

use setgate_domain::audit::AuditAction;
use setgate_domain::filter::Filter;
use setgate_domain::id::{FilterName, TenantId};
use setgate_ledger::{Registry, TenantView};

use super::not_found;
use crate::control::Error;
use crate::control::checks::{expect_version, find_tenant, retried};

/// Applies a change to a stored filter, and returns the filter with its new version and the result of the change. The
/// change is applied again if another one was committed in between, unless the client gave an expected version.
pub(in crate::control) async fn change<T>(
    registry: &Registry,
    tenant: &TenantId,
    name: &FilterName,
    expected: Option<u64>,
    change: impl Fn(&TenantView, &mut Filter) -> Result<(AuditAction, T), Error>,
) -> Result<(Filter, u64, T), Error> {
    retried(expected, || async {
        let view = find_tenant(registry, tenant)?;
        let stored = view.filters.get(name).ok_or_else(|| not_found(name))?;
        let mut filter = stored.value.clone();
        let (audit, result) = change(&view, &mut filter)?;
        let intent = (expect_version(expected, Some(stored)), audit);
        let version = registry.put_filter(filter.clone(), intent).await?;
        Ok((filter, version, result))
    })
    .await
}
