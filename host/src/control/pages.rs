//! Pages of lists, and the cursors between them.
//!
//! A cursor belongs to one tenant as it was made: it names the place in the list, and the incarnation of the tenant. If the
//! tenant is removed and another one is made under its name, the cursors of the first one are refused.

use std::fmt::Display;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

use super::Error;
use crate::domain::page::Filling;
use crate::domain::tenant::Incarnation;

/// Between the place and the incarnation.
const SEPARATOR: char = '-';

/// Some entries of a list, in its order.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    /// The entries; fewer than asked for, or none, does not mean that there are no more.
    pub items: Vec<T>,
    /// Where to go on, as `cursor`; none: that was all.
    pub next: Option<String>,
}

/// Entries of one page at the most.
pub const PAGE_MAX: usize = 200;

/// Which page of a list.
#[derive(Debug, Clone, Default)]
pub struct PageQuery {
    /// The place that the page before ended at; none: from the beginning.
    pub after: Option<String>,
    /// Entries of the page at the most; never more than [`PAGE_MAX`].
    pub limit: usize,
}

impl PageQuery {
    /// Entries of the page.
    pub(super) fn limit(&self) -> usize {
        self.limit.clamp(1, PAGE_MAX)
    }

    /// The place to go on behind.
    pub(super) fn place<P: FromStr>(&self) -> Result<Option<P>, Error> {
        self.after.as_deref().map(|text| text.parse().map_err(|_| Error::BadCursor)).transpose()
    }

    /// The same page, if its place is one of the tenant as it was made.
    pub(super) fn within(&self, of: Incarnation) -> Result<Self, Error> {
        Ok(Self { after: place(of, self.after.as_deref())?, limit: self.limit })
    }

    /// The page of a list that is in memory: `entries` by their places, which rise. It is bounded in bytes as well
    /// ([`PAGE_BYTES_MAX`](crate::domain::page::PAGE_BYTES_MAX)), and entries beyond are not made. An entry that is removed
    /// between two pages moves no other one across the place.
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
        let mut filling = Filling::new(self.limit());
        let (mut last, mut more) = (None, false);
        for (place, entry) in rest {
            if filling.is_full() || !filling.take(show(entry)) {
                more = true;
                break;
            }
            last = Some(place);
        }
        Ok(Page { items: filling.into_items(), next: last.filter(|_| more).map(|place| place.to_string()) })
    }
}

/// A place in a list of the tenant, as a client gets it.
pub(super) fn cursor(of: Incarnation, place: impl Display) -> String {
    format!("{place}{SEPARATOR}{of}")
}

/// The place that a cursor of the same tenant names.
///
/// # Errors
/// [`Error::BadCursor`] if it is malformed, another tenant's or of a tenant that had this name before.
pub(super) fn place<T: FromStr>(of: Incarnation, cursor: Option<&str>) -> Result<Option<T>, Error> {
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
    use crate::domain::page::PAGE_BYTES_MAX;
    use crate::domain::tenant::Tenant;
    use crate::domain::time::Timestamp;

    fn made(id: &str, at_ms: i64) -> Incarnation {
        let created_at = Timestamp::from_millis(at_ms);
        Tenant { id: id.parse().unwrap(), display_name: None, quota: None, created_at }.incarnation()
    }

    #[test]
    fn a_cursor_is_of_one_tenant_as_it_was_made() {
        let acme = made("acme", 1_000);
        let text = cursor(acme, "a-b");
        assert_eq!(place::<String>(acme, Some(&text)).unwrap().as_deref(), Some("a-b"));
        assert_eq!(place::<String>(acme, None).unwrap(), None);
        for other in [made("acme", 1_001), made("other", 1_000)] {
            assert!(matches!(place::<String>(other, Some(&text)), Err(Error::BadCursor)));
        }
        for bad in ["", "a-b", "-", "a", &text.to_uppercase(), &format!("{text} ")] {
            assert!(matches!(place::<String>(acme, Some(bad)), Err(Error::BadCursor)), "{bad}");
        }
        assert!(matches!(place::<u8>(acme, Some(&cursor(acme, 256))), Err(Error::BadCursor)));
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
