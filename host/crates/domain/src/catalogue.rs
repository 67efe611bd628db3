//! The catalogue of the event types of all supported products.
//!
//! Products that identify their events by URI keep those URIs. Logto and the platform use plain names, which are mapped
//! to URIs under [`SETGATE_BASE`]. Every type has a short name, `product/category/name`, for event patterns. An
//! undocumented event name of a known product is accepted in the category `other`, so that new events are not lost
//! because the product is newer than this list.

mod entries;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use super::id::SourceName;

use entries::{ALIASES, ENTRIES};

/// Base of our own event type URIs: `{base}{product}/{category}/event-type/{name}`.
pub const SETGATE_BASE: &str = "https://schemas.setgate.dev/events/";

/// A test event for one subscription, with the source [`crate::id::SourceName::setgate`]. Delivered to that
/// subscription only.
pub const PING: &str = "https://schemas.setgate.dev/events/test/event-type/ping";

/// Whether an event with this source and these types is a requested test event.
pub fn is_test(source: &SourceName, types: &[String]) -> bool {
    source.is_setgate() && types.iter().any(|uri| uri == PING)
}

/// The host paused a subscription because its endpoint is gone, keeps failing, or requested it.
pub const SUBSCRIPTION_DISABLED: &str =
    "https://schemas.setgate.dev/events/operations/event-type/subscription-disabled";

/// Base of WSO2's event type URIs: `{base}{channel}/event-type/{name}`.
pub const WSO2_BASE: &str = "https://schemas.identity.wso2.org/events/";

/// Base of the event type URIs of CAEP, RISC and SSF: `{base}{specification}/event-type/{name}`.
pub const OPENID_BASE: &str = "https://schemas.openid.net/secevent/";

/// The product or specification that defines an event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Product {
    /// WSO2 Identity Server and Asgardeo.
    Wso2,
    /// Logto.
    Logto,
    /// The webhooks and event subscriptions platform, with events of the form `{type, timestamp, data, organization}`.
    Platform,
    /// OpenID Continuous Access Evaluation Profile 1.0.
    Caep,
    /// OpenID RISC Profile 1.0.
    Risc,
    /// OpenID Shared Signals Framework 1.0.
    Ssf,
}

impl Product {
    /// Prefix of short names, and part of URIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wso2 => "wso2",
            Self::Logto => "logto",
            Self::Platform => "platform",
            Self::Caep => "caep",
            Self::Risc => "risc",
            Self::Ssf => "ssf",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Wso2 => "WSO2 Identity Server and Asgardeo",
            Self::Logto => "Logto",
            Self::Platform => "Webhooks and event subscriptions platform",
            Self::Caep => "CAEP 1.0",
            Self::Risc => "RISC 1.0",
            Self::Ssf => "SSF 1.0",
        }
    }

    fn uri(self, category: &str, name: &str) -> String {
        let product = self.as_str();
        match self {
            Self::Wso2 => format!("{WSO2_BASE}{category}/event-type/{name}"),
            Self::Logto | Self::Platform => format!("{SETGATE_BASE}{product}/{category}/event-type/{name}"),
            Self::Caep | Self::Risc | Self::Ssf => format!("{OPENID_BASE}{product}/event-type/{name}"),
        }
    }
}

/// An event type.
#[derive(Debug)]
pub struct Entry {
    /// The product that defines it.
    pub product: Product,
    /// Category or channel in the product's documentation. CAEP, RISC and SSF have none, so theirs are defined here.
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

static CATALOGUE: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let entry = |&(product, category, name, about): &(Product, &'static str, &'static str, &'static str)| Entry {
        product,
        category,
        name,
        about,
        uri: product.uri(category, name),
        short_name: format!("{}/{category}/{name}", product.as_str()),
    };
    ENTRIES.iter().map(entry).collect()
});

static BY_URI: LazyLock<HashMap<&'static str, &'static Entry>> =
    LazyLock::new(|| all().map(|entry| (entry.uri.as_str(), entry)).collect());

/// Names of the platform are normalised; other names are exact.
static BY_NAME: LazyLock<HashMap<(Product, Cow<'static, str>), &'static Entry>> = LazyLock::new(|| {
    let mut names: HashMap<(Product, Cow<'static, str>), &'static Entry> =
        all().map(|entry| ((entry.product, key(entry.product, entry.name)), entry)).collect();
    for (alias, name) in ALIASES {
        if let Some(entry) = names.get(&(Product::Platform, key(Product::Platform, name))).copied() {
            names.insert((Product::Platform, key(Product::Platform, alias)), entry);
        }
    }
    names
});

/// All event types, ordered by product and category.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    CATALOGUE.iter()
}

/// Looks up an event type by URI.
pub fn by_uri(uri: &str) -> Option<&'static Entry> {
    BY_URI.get(uri).copied()
}

/// Looks up an event type by the product's name for it.
///
/// The platform's exact event names are not public, so its names are matched leniently: letter case and the separators
/// `. : _ - /` and space are ignored (`user.login`, `USER_LOGIN`, `userLogin`), and common synonyms are known
/// (`user.signup` for `user.created`).
pub fn by_name(product: Product, name: &str) -> Option<&'static Entry> {
    BY_NAME.get(&(product, key(product, name))).copied()
}

/// The event type URI for a product's event name. Unknown names are percent-encoded under the category `other`.
pub fn uri_for(product: Product, name: &str) -> Cow<'static, str> {
    match by_name(product, name) {
        Some(entry) => Cow::Borrowed(&entry.uri),
        None => Cow::Owned(product.uri("other", &percent_encoded(name))),
    }
}

/// The event type URI for a name that is not a URI, from a source of plain SETs that allows such names.
pub fn uri_for_plain(name: &str) -> String {
    format!("{SETGATE_BASE}set/other/event-type/{}", percent_encoded(name))
}

/// `product/category/name` for an event type URI: from the catalogue, or derived from the URI for an unknown event of a
/// known product. `None` for all other URIs.
pub fn short_name(uri: &str) -> Option<Cow<'static, str>> {
    if let Some(entry) = by_uri(uri) {
        return Some(Cow::Borrowed(&entry.short_name));
    }
    let split = |rest: &str| {
        let (place, name) = rest.split_once("/event-type/")?;
        (!place.is_empty() && !name.is_empty()).then(|| (place.to_owned(), name.to_owned()))
    };
    let short = if let Some(rest) = uri.strip_prefix(SETGATE_BASE) {
        let (place, name) = split(rest)?;
        format!("{place}/{name}")
    } else if let Some(rest) = uri.strip_prefix(WSO2_BASE) {
        let (channel, name) = split(rest)?;
        format!("wso2/{channel}/{name}")
    } else {
        let (specification, name) = split(uri.strip_prefix(OPENID_BASE)?)?;
        format!("{specification}/other/{name}")
    };
    // Patterns with a colon are matched against the URI, so a short name must not contain one.
    Some(Cow::Owned(short.replace(':', "%3A")))
}

/// Generates the Markdown page `docs/reference/events.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# Event types\n\n\
        Every event type that Setgate knows by name. A subscription's event pattern is matched against the short name, or\n\
        against the URI if the pattern contains a `:`. Other events of a product are accepted too; they\n\
        are in the category `other` (WSO2: in their own channel).\n",
    );
    let mut product = None;
    for entry in all() {
        if product != Some(entry.product) {
            product = Some(entry.product);
            let _ = write!(page, "\n## {}\n\n", entry.product.title());
            page.push_str("| short name | meaning | URI |\n|---|---|---|\n");
        }
        let _ = writeln!(page, "| `{}` | {} | `{}` |", entry.short_name, entry.about, entry.uri);
    }
    page
}

fn key(product: Product, name: &str) -> Cow<'static, str> {
    let folded = || name.chars().filter(|c| !". :_-/".contains(*c)).map(|c| c.to_ascii_lowercase()).collect();
    Cow::Owned(if product == Product::Platform { folded() } else { name.to_owned() })
}

/// Percent-encodes all but the unreserved characters (RFC 3986 section 2.3).
fn percent_encoded(name: &str) -> String {
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

    #[test]
    fn every_name_and_uri_is_there_once() {
        assert_eq!(BY_URI.len(), ENTRIES.len());
        let names: std::collections::BTreeSet<_> = all().map(|e| (e.product, key(e.product, e.name))).collect();
        assert_eq!(names.len(), ENTRIES.len());
        assert_eq!(BY_NAME.len(), ENTRIES.len() + ALIASES.len(), "no alias repeats a name, or another alias");
        for (alias, name) in ALIASES {
            let entry = by_name(Product::Platform, alias).unwrap_or_else(|| panic!("{alias} leads nowhere"));
            assert_eq!(entry.name, *name, "{alias}");
        }
        for entry in all() {
            assert!(crate::set::is_absolute_uri(&entry.uri));
            assert!(!entry.short_name.contains([':', ' ', '*']));
            assert_eq!(short_name(&entry.uri).as_deref(), Some(entry.short_name.as_str()));
            assert_eq!(by_name(entry.product, entry.name).map(|e| &e.uri), Some(&entry.uri));
        }
    }

    #[test]
    fn platform_names_are_read_with_tolerance() {
        for (given, name) in [
            ("user.created", "user.created"),
            ("USER_CREATED", "user.created"),
            ("userCreated", "user.created"),
            ("user.signup", "user.created"),
            ("mfa_challenge_failed", "mfa.challenge_failed"),
            ("mfa:challenge-failed", "mfa.challenge_failed"),
            ("org/member added", "organization.member_added"),
            ("account.locked", "security.account_locked"),
        ] {
            assert_eq!(by_name(Product::Platform, given).map(|e| e.name), Some(name), "{given}");
        }
        assert!(by_name(Product::Logto, "postsignin").is_none(), "Logto's names are public and exact");
    }

    #[test]
    fn unknown_events_of_known_products_have_a_place() {
        let uri = uri_for(Product::Logto, "New: Thing/é");
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
    fn the_page_shows_the_catalogue() {
        let (committed, page) = (include_str!("../../../../docs/reference/events.md"), page());
        for (number, (there, here)) in committed.lines().zip(page.lines()).enumerate() {
            assert_eq!(there, here, "docs/reference/events.md, line {}: it differs from the catalogue", number + 1);
        }
        assert!(committed == page, "docs/reference/events.md lacks or adds lines; it has to read:\n{page}");
    }
}
