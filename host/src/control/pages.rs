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

/// Some entries of a list, newest first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    /// The entries; fewer than asked for, or none, does not mean that there are no more.
    pub items: Vec<T>,
    /// Where to go on, as `cursor`; none: that was all.
    pub next: Option<String>,
}

impl<T: Serialize> Page<T> {
    /// A page of a list that is in memory, from the first of `items` on: at most `limit` entries, and at most
    /// [`PAGE_BYTES_MAX`](crate::domain::page::PAGE_BYTES_MAX). Entries beyond are not made. `place` is what the next page
    /// begins behind, after this entry.
    pub fn of(
        of: Incarnation,
        items: impl IntoIterator<Item = T>,
        limit: usize,
        place: impl FnOnce(&T) -> String,
    ) -> Self {
        let mut filling = Filling::new(limit);
        let more = items.into_iter().any(|item| !filling.take(item));
        let next = filling.last().filter(|_| more).map(place);
        Self { items: filling.into_items(), next: next.map(|next| cursor(of, next)) }
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
    fn a_list_in_memory_is_cut_by_count_and_by_bytes() {
        let acme = made("acme", 1_000);
        let page = Page::of(acme, 1..=5, 2, ToString::to_string);
        assert_eq!((page.items, page.next), (vec![1, 2], Some(cursor(acme, 2))));
        let whole = Page::of(acme, 1..=2, 2, ToString::to_string);
        assert_eq!((whole.items, whole.next), (vec![1, 2], None));
        let large = "x".repeat(PAGE_BYTES_MAX / 2);
        let page = Page::of(acme, (0..9).map(|_| large.clone()), 200, |_| "at".into());
        assert_eq!((page.items.len(), page.next.is_some()), (1, true));
    }
}
