//! The audit log, for the tenant and for the operator.

use super::deliveries::PAGE_MAX;
use super::{Control, Error, Page, pages};
pub use crate::domain::audit::{Query, Record};
use crate::domain::id::TenantId;

impl Control {
    /// What was changed of the tenant, newest first, since it was made.
    pub async fn list_audit(
        &self,
        tenant: &TenantId,
        query: Query,
        cursor: Option<String>,
        limit: usize,
    ) -> Result<Page<Record>, Error> {
        let of = self.tenant(tenant)?.incarnation();
        let place: Option<String> = pages::place(of, cursor.as_deref())?;
        let page = self.audit_page(Some(tenant), true, query, place, limit).await?;
        Ok(Page { items: page.items, next: page.next.map(|next| pages::cursor(of, next)) })
    }

    /// What was changed at the host, newest first; of one tenant, where one is given, its namesakes' too.
    pub async fn list_whole_audit(
        &self,
        tenant: Option<&TenantId>,
        query: Query,
        cursor: Option<String>,
        limit: usize,
    ) -> Result<Page<Record>, Error> {
        self.audit_page(tenant, false, query, cursor, limit).await
    }

    async fn audit_page(
        &self,
        tenant: Option<&TenantId>,
        since_made: bool,
        query: Query,
        cursor: Option<String>,
        limit: usize,
    ) -> Result<Page<Record>, Error> {
        let before = cursor.map(|text| place(&text).ok_or(Error::BadCursor)).transpose()?;
        let (items, next) = self.ledger.audit(tenant, since_made, query, before, limit.clamp(1, PAGE_MAX)).await?;
        Ok(Page { items, next: next.map(|seq| format!("{seq:016x}")) })
    }
}

/// The place that a page ended at, as [`Control::list_audit`] wrote it: it has one spelling.
fn place(text: &str) -> Option<i64> {
    let seq = i64::from_str_radix(text, 16).ok().filter(|seq| *seq > 0)?;
    (format!("{seq:016x}") == text).then_some(seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_spelling() {
        assert_eq!(place("00000000000000ff"), Some(255));
        for bad in ["", "ff", "00000000000000FF", "0000000000000000", "-000000000000001", "ffffffffffffffff", "é"] {
            assert_eq!(place(bad), None, "{bad}");
        }
    }
}
