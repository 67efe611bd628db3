//! Queries of the audit log, for tenants and for the operator.

use std::fmt;
use std::str::FromStr;

use super::checks::find_tenant;
use super::{Error, Page, PageQuery, pages};

pub use setgate_domain::audit::{AuditQuery, AuditRecord};
use setgate_domain::id::TenantId;

/// Reads the audit log.
#[derive(Clone)]
pub struct AuditLog {
    pub(super) registry: setgate_ledger::Registry,
    pub(super) history: setgate_ledger::History,
}

impl AuditLog {
    /// The tenant's audit records since the tenant was created, newest first.
    pub async fn list(
        &self,
        tenant: &TenantId,
        query: AuditQuery,
        page: &PageQuery,
    ) -> Result<Page<AuditRecord>, Error> {
        let of = find_tenant(&self.registry, tenant)?.incarnation();
        let page = self.audit_page(Some(tenant), true, query, &page.within(of)?).await?;
        Ok(Page { items: page.items, next: page.next.map(|next| pages::cursor(of, next)) })
    }

    /// All audit records of the host, newest first. If `tenant` is given, only records with that tenant name, including
    /// those of earlier tenants with the same name.
    pub async fn list_whole(
        &self,
        tenant: Option<&TenantId>,
        query: AuditQuery,
        page: &PageQuery,
    ) -> Result<Page<AuditRecord>, Error> {
        self.audit_page(tenant, false, query, page).await
    }

    async fn audit_page(
        &self,
        tenant: Option<&TenantId>,
        since_creation: bool,
        query: AuditQuery,
        page: &PageQuery,
    ) -> Result<Page<AuditRecord>, Error> {
        let before = page.place::<Place>()?.map(|place| place.0);
        let (items, next) = self.history.audit(tenant, since_creation, query, before, page.limit()).await?;
        Ok(Page { items, next: next.map(|seq| Place(seq).to_string()) })
    }
}

/// Cursor of the audit log: the sequence number of the last record of a page, as 16 lower-case hexadecimal digits.
#[derive(Debug, PartialEq, Eq)]
struct Place(i64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let seq = i64::from_str_radix(text, 16).ok().filter(|seq| *seq > 0).map(Self);
        seq.filter(|place| place.to_string() == text).ok_or(Error::BadCursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_spelling() {
        assert_eq!("00000000000000ff".parse::<Place>().ok(), Some(Place(255)));
        for bad in ["", "ff", "00000000000000FF", "0000000000000000", "-000000000000001", "ffffffffffffffff", "é"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
