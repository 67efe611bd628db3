//! Pages of lists, and their cursors.
//!
//! A cursor is bound to one incarnation of a tenant: it contains the position in the list and the incarnation. If a
//! tenant is removed and created again under the same name, cursors of the old tenant are refused.

use std::fmt::Display;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;
use setgate_domain::page::PageBuilder;
use setgate_domain::tenant::Incarnation;

use super::Error;

/// Separates the position and the incarnation.
const SEPARATOR: char = '-';

/// One page of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    /// The items. There may be further pages even if this one has fewer items than requested, or none.
    pub items: Vec<T>,
    /// The `cursor` of the next page. `null` on the last page.
    pub next: Option<String>,
}

/// Limit for the items of one page.
pub const PAGE_MAX: usize = 200;

/// Selects a page of a list.
#[derive(Debug, Clone, Default)]
pub struct PageQuery {
    /// The cursor returned by the previous page. `None` selects the first page.
    pub after: Option<String>,
    /// Requested number of items, at most [`PAGE_MAX`].
    pub limit: usize,
}

impl PageQuery {
    /// The number of items within the limits.
    pub(super) fn limit(&self) -> usize {
        self.limit.clamp(1, PAGE_MAX)
    }

    /// The parsed position after which the page begins.
    pub(super) fn place<P: FromStr>(&self) -> Result<Option<P>, Error> {
        self.after.as_deref().map(|text| text.parse().map_err(|_| Error::BadCursor)).transpose()
    }

    /// Checks that the cursor belongs to this incarnation of the tenant, and removes the incarnation from it.
    pub(super) fn within(&self, of: Incarnation) -> Result<Self, Error> {
        Ok(Self { after: parse_cursor(of, self.after.as_deref())?, limit: self.limit })
    }

    /// A page of an in-memory list. `entries` must be sorted by position. The page is also limited in bytes
    /// ([`PAGE_BYTES_MAX`](setgate_domain::page::PAGE_BYTES_MAX)), and entries beyond the limit are not converted.
    /// Entries removed between two pages do not affect the position of other entries.
    pub(super) fn of<P, V, T>(
        &self,
        entries: impl IntoIterator<Item = (P, V)>,
        mut show: impl FnMut(V) -> T,
    ) -> Result<Page<T>, Error>
    where
        P: Ord + FromStr + Display,
        T: Serialize,
    {
        let after: Option<P> = self.place()?;
        let rest = entries.into_iter().skip_while(|(place, _)| after.as_ref().is_some_and(|after| place <= after));
        let mut filling = PageBuilder::new(self.limit());
        let (mut last, mut more) = (None, false);
        for (place, entry) in rest {
            if filling.is_full() || !filling.push(show(entry)) {
                more = true;
                break;
            }
            last = Some(place);
        }
        Ok(Page { items: filling.into_items(), next: last.filter(|_| more).map(|place| place.to_string()) })
    }
}

/// The cursor for a position in a tenant's list, as returned to clients.
pub(super) fn cursor(of: Incarnation, place: impl Display) -> String {
    format!("{place}{SEPARATOR}{of}")
}

/// The position in a cursor of this incarnation of the tenant.
///
/// # Errors
/// [`Error::BadCursor`] if the cursor is malformed, or belongs to another tenant or to an earlier tenant with the same
/// name.
pub(super) fn parse_cursor<T: FromStr>(of: Incarnation, cursor: Option<&str>) -> Result<Option<T>, Error> {
    let Some(cursor) = cursor else { return Ok(None) };
    let (place, tag) = cursor.rsplit_once(SEPARATOR).ok_or(Error::BadCursor)?;
    if tag != of.to_string() {
        return Err(Error::BadCursor);
    }
    place.parse().map(Some).map_err(|_| Error::BadCursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::page::PAGE_BYTES_MAX;
    use setgate_domain::tenant::Tenant;
    use setgate_domain::time::Timestamp;

    fn made(id: &str, at_ms: i64) -> Incarnation {
        let created_at = Timestamp::from_millis(at_ms);
        Tenant { id: id.parse().unwrap(), display_name: None, quota: None, issuer: None, created_at }.incarnation()
    }

    #[test]
    fn a_cursor_is_of_one_tenant_as_it_was_made() {
        let acme = made("acme", 1_000);
        let text = cursor(acme, "a-b");
        assert_eq!(parse_cursor::<String>(acme, Some(&text)).unwrap().as_deref(), Some("a-b"));
        assert_eq!(parse_cursor::<String>(acme, None).unwrap(), None);
        for other in [made("acme", 1_001), made("other", 1_000)] {
            assert!(matches!(parse_cursor::<String>(other, Some(&text)), Err(Error::BadCursor)));
        }
        for bad in ["", "a-b", "-", "a", &text.to_uppercase(), &format!("{text} ")] {
            assert!(matches!(parse_cursor::<String>(acme, Some(bad)), Err(Error::BadCursor)), "{bad}");
        }
        assert!(matches!(parse_cursor::<u8>(acme, Some(&cursor(acme, 256))), Err(Error::BadCursor)));
    }

    #[test]
    fn a_list_in_memory_is_cut_by_bytes_too() {
        let large = "x".repeat(PAGE_BYTES_MAX / 2);
        let query = PageQuery { after: None, limit: 200 };
        let page = query.of((0..9).map(|at| (at, &large)), Clone::clone).unwrap();
        assert_eq!((page.items.len(), page.next.as_deref()), (1, Some("0")));
    }

    fn pages(limit: usize, entries: &[u32]) -> Vec<Vec<u32>> {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let query = PageQuery { after, limit };
            let page = query.of(entries.iter().map(|entry| (*entry, entry)), |entry| *entry).unwrap();
            pages.push(page.items);
            after = page.next;
            if after.is_none() {
                return pages;
            }
        }
    }

    #[test]
    fn pages_have_each_entry_once_and_the_last_one_says_so() {
        assert_eq!(pages(2, &[]), [Vec::<u32>::new()]);
        assert_eq!(pages(2, &[1, 2]), [vec![1, 2]]);
        assert_eq!(pages(2, &[1, 2, 3]), [vec![1, 2], vec![3]]);
        assert_eq!(pages(0, &[1, 2]), [vec![1], vec![2]], "a page has at least one entry");
    }

    #[test]
    fn a_page_goes_on_behind_an_entry_that_is_gone() {
        let query = PageQuery { after: Some("2".into()), limit: 9 };
        assert_eq!(query.of([(1, 1), (3, 3)], |entry| entry).unwrap().items, [3]);
        let bad = PageQuery { after: Some("x".into()), limit: 9 };
        assert!(matches!(bad.of([(1, 1)], |entry| entry), Err(Error::BadCursor)));
    }
}
