//! The audit log, for the tenant and for the operator.

use std::fmt;
use std::str::FromStr;

use super::{Control, Error, Page, PageQuery, pages};
pub use crate::domain::audit::{Query, Record};
use crate::domain::id::TenantId;

impl Control {
    /// What was changed of the tenant, newest first, since it was made.
    pub async fn list_audit(&self, tenant: &TenantId, query: Query, page: PageQuery) -> Result<Page<Record>, Error> {
        let of = self.tenant(tenant)?.incarnation();
        let page = self.audit_page(Some(tenant), true, query, page.within(of)?).await?;
        Ok(Page { items: page.items, next: page.next.map(|next| pages::cursor(of, next)) })
    }

    /// What was changed at the host, newest first; of one tenant, where one is given, its namesakes' too.
    pub async fn list_whole_audit(
        &self,
        tenant: Option<&TenantId>,
        query: Query,
        page: PageQuery,
    ) -> Result<Page<Record>, Error> {
        self.audit_page(tenant, false, query, page).await
    }

    async fn audit_page(
        &self,
        tenant: Option<&TenantId>,
        since_made: bool,
        query: Query,
        page: PageQuery,
    ) -> Result<Page<Record>, Error> {
        let before = page.place::<Place>()?.map(|place| place.0);
        let (items, next) = self.ledger.audit(tenant, since_made, query, before, page.limit()).await?;
        Ok(Page { items, next: next.map(|seq| Place(seq).to_string()) })
    }
}

/// The place that a page ended at: it has one spelling.
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
