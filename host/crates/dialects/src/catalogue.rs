//! The catalogue of the event types of all products.
//!
//! Products that identify their events by URI keep those URIs. Plain names are mapped to URIs under [`SETGATE_BASE`].
//! Every type has a short name, `product/category/name`, for event patterns. An undocumented event name of a known
//! product is accepted in the category `other`, so that new events are not lost because the product is newer than this
//! list.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use setgate_domain::builtin_event::SETGATE_BASE;

use crate::dialect::DIALECTS;

/// A product or specification that defines event types.
#[derive(Debug)]
pub struct Product {
    /// Prefix of short names, and part of URIs.
    pub name: &'static str,
    /// Its full name.
    pub title: &'static str,
    /// The event type URI for a category and a name.
    pub(crate) uri: fn(&str, &str) -> String,
    /// Whether letter case and the separators `. : _ - /` and space are ignored in names, because the exact names are not
    /// public.
    pub(crate) has_lenient_names: bool,
    /// Category, name and description of each event type. Not every product has categories: see its folder.
    pub(crate) events: &'static [(&'static str, &'static str, &'static str)],
    /// Synonyms of names.
    pub(crate) aliases: &'static [(&'static str, &'static str)],
}

/// An event type.
#[derive(Debug)]
pub struct EventType {
    /// The product that defines it.
    pub product: &'static Product,
    /// Category or channel in the product's documentation.
    pub category: &'static str,
    /// Name in the product's documentation.
    pub name: &'static str,
    /// Short description of the event.
    pub about: &'static str,
    /// The event type URI, used as member name in `events`.
    pub uri: String,
    /// `product/category/name`.
    pub short_name: String,
}

static CATALOGUE: LazyLock<Vec<EventType>> = LazyLock::new(|| {
    let of_product = |product: &'static Product| {
        product.events.iter().map(move |&(category, name, about)| EventType {
            product,
            category,
            name,
            about,
            uri: (product.uri)(category, name),
            short_name: format!("{}/{category}/{name}", product.name),
        })
    };
    products().flat_map(of_product).collect()
});

static BY_URI: LazyLock<HashMap<&'static str, &'static EventType>> =
    LazyLock::new(|| event_types().map(|entry| (entry.uri.as_str(), entry)).collect());

/// By name of the product, and [`key`] of the event's name.
static BY_NAME: LazyLock<HashMap<(&'static str, String), &'static EventType>> = LazyLock::new(|| {
    let mut names: HashMap<(&'static str, String), &'static EventType> =
        event_types().map(|entry| ((entry.product.name, key(entry.product, entry.name)), entry)).collect();
    for product in products() {
        for (alias, name) in product.aliases {
            if let Some(entry) = names.get(&(product.name, key(product, name))).copied() {
                names.insert((product.name, key(product, alias)), entry);
            }
        }
    }
    names
});

fn products() -> impl Iterator<Item = &'static Product> {
    DIALECTS.iter().flat_map(|dialect| dialect.products)
}

/// All event types, ordered by product and category.
pub fn event_types() -> impl Iterator<Item = &'static EventType> {
    CATALOGUE.iter()
}

/// Looks up an event type by URI.
pub fn by_uri(uri: &str) -> Option<&'static EventType> {
    BY_URI.get(uri).copied()
}

/// Looks up an event type by the product's name for it, or by a synonym.
pub fn by_name(product: &Product, name: &str) -> Option<&'static EventType> {
    BY_NAME.get(&(product.name, key(product, name))).copied()
}

/// Looks up an event type by any product's name for it, or by a synonym.
pub fn by_any_name(name: &str) -> Option<&'static EventType> {
    products().find_map(|product| by_name(product, name))
}

/// The event type URI for a product's event name. Unknown names are percent-encoded under the category `other`.
pub(crate) fn uri_for(product: &Product, name: &str) -> Cow<'static, str> {
    match by_name(product, name) {
        Some(entry) => Cow::Borrowed(&entry.uri),
        None => Cow::Owned((product.uri)("other", &percent_encoded(name))),
    }
}

/// The event type URI of a product that names its events without URIs.
pub(crate) fn setgate_uri(product: &str, category: &str, name: &str) -> String {
    format!("{SETGATE_BASE}{product}/{category}/event-type/{name}")
}

/// `product/category/name` for an event type URI: from the catalogue, or derived from the URI for an unknown event of a
/// known product. `None` for all other URIs.
pub fn short_name(uri: &str) -> Option<Cow<'static, str>> {
    if let Some(entry) = by_uri(uri) {
        return Some(Cow::Borrowed(&entry.short_name));
    }
    let short = match uri.strip_prefix(SETGATE_BASE) {
        Some(rest) => {
            let (place, name) = rest.split_once("/event-type/")?;
            (!place.is_empty() && !name.is_empty()).then(|| format!("{place}/{name}"))?
        }
        None => DIALECTS.iter().filter_map(|dialect| dialect.unlisted).find_map(|unlisted| unlisted(uri))?,
    };
    // Patterns with a colon are matched against the URI, so a short name must not contain one.
    Some(Cow::Owned(short.replace(':', "%3A")))
}

/// Generates the Markdown page `docs/reference/events.md`.
pub fn to_markdown() -> String {
    let mut page = String::from(
        "# Event types\n\n\
        Every event type that Setgate knows by name. A subscription's event pattern is matched against the short name, or\n\
        against the URI if the pattern contains a `:`. Other events of a product are accepted too; they\n\
        are in the category `other` (WSO2: in their own channel).\n",
    );
    for product in products() {
        let _ = write!(page, "\n## {}\n\n", product.title);
        page.push_str("| short name | meaning | URI |\n|---|---|---|\n");
        for entry in event_types().filter(|entry| entry.product.name == product.name) {
            let _ = writeln!(page, "| `{}` | {} | `{}` |", entry.short_name, entry.about, entry.uri);
        }
    }
    page
}

fn key(product: &Product, name: &str) -> String {
    if !product.has_lenient_names {
        return name.to_owned();
    }
    name.chars().filter(|c| !". :_-/".contains(*c)).map(|c| c.to_ascii_lowercase()).collect()
}

/// Percent-encodes all but the unreserved characters (RFC 3986 section 2.3).
pub(crate) fn percent_encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::DIALECTS;

    #[test]
    fn names_and_uris_are_unique() {
        let count = event_types().count();
        assert_eq!(BY_URI.len(), count);
        let names: std::collections::BTreeSet<_> =
            event_types().map(|e| (e.product.name, key(e.product, e.name))).collect();
        assert_eq!(names.len(), count);
        let aliases: Vec<_> = products().flat_map(|p| p.aliases.iter().map(move |alias| (p, alias))).collect();
        assert_eq!(BY_NAME.len(), count + aliases.len(), "no alias repeats a name, or another alias");
        for (product, (alias, name)) in aliases {
            let entry = by_name(product, alias).unwrap_or_else(|| panic!("{alias} leads nowhere"));
            assert_eq!(entry.name, *name, "{alias}");
        }
        for entry in event_types() {
            assert!(setgate_domain::set::is_absolute_uri(&entry.uri));
            assert!(!entry.short_name.contains([':', ' ', '*']));
            assert_eq!(short_name(&entry.uri).as_deref(), Some(entry.short_name.as_str()));
            assert_eq!(by_name(entry.product, entry.name).map(|e| &e.uri), Some(&entry.uri));
        }
    }

    #[test]
    fn unknown_events_are_in_category_other() {
        let logto =
            DIALECTS.iter().flat_map(|dialect| dialect.products).find(|product| product.name == "logto").unwrap();
        assert!(by_name(logto, "postsignin").is_none(), "Logto's names are public and exact");
        let uri = uri_for(logto, "New: Thing/é");
        assert_eq!(uri, "https://schemas.setgate.dev/events/logto/other/event-type/New%3A%20Thing%2F%C3%A9");
        assert_eq!(short_name(&uri).unwrap(), "logto/other/New%3A%20Thing%2F%C3%A9");
        for (uri, short) in [
            ("https://schemas.identity.wso2.org/events/agent/event-type/agentBorn", Some("wso2/agent/agentBorn")),
            ("https://schemas.openid.net/secevent/caep/event-type/new-one", Some("caep/other/new-one")),
            ("https://schemas.openid.net/secevent/caep/event-type/", None),
            ("https://schemas.setgate.dev/events/x", None),
            ("urn:ietf:params:scim:event:passwordReset", None),
        ] {
            assert_eq!(short_name(uri).as_deref(), short, "{uri}");
        }
    }

    #[test]
    fn events_page_is_up_to_date() {
        let (committed, page) = (include_str!("../../../../docs/reference/events.md"), to_markdown());
        for (number, (there, here)) in committed.lines().zip(page.lines()).enumerate() {
            assert_eq!(there, here, "docs/reference/events.md, line {}: it differs from the catalogue", number + 1);
        }
        assert!(committed == page, "docs/reference/events.md lacks or adds lines; it has to read:\n{page}");
    }
}
