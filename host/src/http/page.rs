//! Pagination of lists by `limit` and `cursor`. A cursor is only valid for the list that issued it, that is, for its
//! route and tenant.

use axum::Json;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams};
use http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;
use setgate_base::crypto::sha256;

use super::extract::Query;
use super::openapi::{DescribeInput, OperationDraft};
use super::problem::{Code, Problem};
use super::state::SharedState;
use crate::control::pages::{PAGE_MAX, Page, PageQuery};

/// Default number of entries per page.
const PAGE_DEFAULT: usize = 50;
/// Bytes of the list's digest in a cursor. A cursor grants no access, so the digest only has to detect mistakes.
const MARK_BYTES: usize = 8;

/// The requested page of a list.
pub(super) struct Paging {
    list: List,
    pub(super) query: PageQuery,
}

impl Paging {
    /// The answer with a page.
    pub(super) fn answer<T>(&self, page: Page<T>) -> Json<Page<T>> {
        let next = page.next.map(|place| self.list.cursor(&place));
        Json(Page { items: page.items, next })
    }
}

impl FromRequestParts<SharedState> for Paging {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedState) -> Result<Self, Problem> {
        let list = List::from_request_parts(parts, app).await?;
        let Query(PageParameters { limit, cursor }) = Query::from_request_parts(parts, app).await?;
        let after = cursor.map(|cursor| list.place(&cursor)).transpose()?;
        Ok(Self { list, query: PageQuery { after, limit: limit.0 } })
    }
}

impl DescribeInput for Paging {
    fn describe(draft: &mut OperationDraft<'_>) {
        draft.in_query::<PageParameters>();
    }
}

/// The query parameters of every list.
#[derive(Deserialize, JsonSchema)]
struct PageParameters {
    /// Maximum number of entries in the page.
    #[serde(default)]
    limit: Limit,
    /// Continues a list: `next` of the previous page.
    cursor: Option<String>,
}

/// Maximum number of entries in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "usize")]
#[schemars(inline, extend("minimum" = 1, "maximum" = PAGE_MAX, "default" = PAGE_DEFAULT))]
struct Limit(usize);

impl Default for Limit {
    fn default() -> Self {
        Self(PAGE_DEFAULT)
    }
}

impl TryFrom<usize> for Limit {
    type Error = String;

    fn try_from(given: usize) -> Result<Self, String> {
        if (1..=PAGE_MAX).contains(&given) {
            Ok(Self(given))
        } else {
            Err(format!("from 1 to {PAGE_MAX}, not {given}"))
        }
    }
}

/// The list that a cursor belongs to.
pub(super) struct List {
    route: String,
    /// The path parameters: the tenant, and the parent resource of the list.
    names: Vec<String>,
}

impl List {
    /// The cursor for a position in this list.
    pub(super) fn cursor(&self, place: &str) -> String {
        format!("{place}.{}", self.mark(place))
    }

    /// The position in this list that a cursor stands for.
    pub(super) fn place(&self, cursor: &str) -> Result<String, Problem> {
        match cursor.rsplit_once('.') {
            Some((place, mark)) if mark == self.mark(place) => Ok(place.to_owned()),
            _ => Err(Problem::from(crate::control::Error::BadCursor)),
        }
    }

    fn mark(&self, place: &str) -> String {
        let names = self.names.iter().map(String::as_str);
        let parts: Vec<&str> = ["cursor", &self.route].into_iter().chain(names).chain([place]).collect();
        // No part can contain a NUL.
        hex::encode(&sha256(parts.join("\0").as_bytes())[..MARK_BYTES])
    }
}

impl FromRequestParts<SharedState> for List {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedState) -> Result<Self, Problem> {
        let not_found = |detail: String| Problem::new(Code::NotFound, detail);
        let route = MatchedPath::from_request_parts(parts, app).await.map_err(|error| not_found(error.body_text()))?;
        let names =
            RawPathParams::from_request_parts(parts, app).await.map_err(|error| not_found(error.body_text()))?;
        Ok(Self {
            route: route.as_str().trim_end_matches('/').to_owned(),
            names: names.iter().map(|(_, name)| name.to_owned()).collect(),
        })
    }
}

/// Describes nothing: the cursor is a member of the body.
impl DescribeInput for List {
    fn describe(_: &mut OperationDraft<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_belongs_to_one_list_of_one_tenant() {
        let list = |route: &str, name: &str| List { route: route.to_owned(), names: vec![name.to_owned()] };
        let cursor = list("/a", "acme").cursor("x.y");
        assert_eq!(list("/a", "acme").place(&cursor).ok().as_deref(), Some("x.y"));
        let changed = cursor.replace('x', "z");
        for (list, cursor) in [
            (list("/b", "acme"), cursor.as_str()),
            (list("/a", "globex"), &cursor),
            (list("/a", "acme"), &changed),
            (list("/a", "acme"), "x.y"),
            (list("/a", "acme"), ""),
            (list("/a", "acme"), "."),
        ] {
            assert_eq!(list.place(cursor).err().map(|problem| problem.code()), Some(Code::BadCursor), "{cursor}");
        }
    }
}
