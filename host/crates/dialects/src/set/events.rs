//! Event types of the OpenID profiles: CAEP 1.0 section 3, RISC 1.0 section 2, SSF 1.0 section 8.1. They have no categories,
//! so theirs are defined here.

use crate::catalogue::Product;

/// Base of the event type URIs: `{base}{specification}/event-type/{name}`.
const BASE: &str = "https://schemas.openid.net/secevent/";

pub(super) const CAEP: Product = Product {
    name: "caep",
    title: "CAEP 1.0",
    uri: |_, name| format!("{BASE}caep/event-type/{name}"),
    has_lenient_names: false,
    events: CAEP_EVENTS,
    aliases: &[],
};

pub(super) const RISC: Product = Product {
    name: "risc",
    title: "RISC 1.0",
    uri: |_, name| format!("{BASE}risc/event-type/{name}"),
    has_lenient_names: false,
    events: RISC_EVENTS,
    aliases: &[],
};

pub(super) const SSF: Product = Product {
    name: "ssf",
    title: "SSF 1.0",
    uri: |_, name| format!("{BASE}ssf/event-type/{name}"),
    has_lenient_names: false,
    events: SSF_EVENTS,
    aliases: &[],
};

/// The short name of an event that is not in the catalogue: in the category `other` of its specification.
pub(super) fn unlisted(uri: &str) -> Option<String> {
    let (specification, name) = uri.strip_prefix(BASE)?.split_once("/event-type/")?;
    (!specification.is_empty() && !name.is_empty()).then(|| format!("{specification}/other/{name}"))
}

/// Category, name, description.
#[rustfmt::skip]
const CAEP_EVENTS: &[(&str, &str, &str)] = &[
    ("session", "session-established", "A session began"),
    ("session", "session-presented", "A session was used again"),
    ("session", "session-revoked", "A session was ended"),
    ("token", "token-claims-change", "A token's claims changed"),
    ("credential", "credential-change", "A credential was made, changed, revoked or deleted"),
    ("assurance", "assurance-level-change", "The assurance of an authentication changed"),
    ("device", "device-compliance-change", "A device's compliance changed"),
    ("risk", "risk-level-change", "The risk of a user, device or session changed"),
];

/// Category, name, description.
#[rustfmt::skip]
const RISC_EVENTS: &[(&str, &str, &str)] = &[
    ("account", "account-credential-change-required", "A user has to change a credential"),
    ("account", "account-purged", "An account was deleted for good"),
    ("account", "account-disabled", "An account was disabled"),
    ("account", "account-enabled", "An account was enabled"),
    ("identifier", "identifier-changed", "An identifier was changed"),
    ("identifier", "identifier-recycled", "An identifier was given to somebody else"),
    ("credential", "credential-compromise", "A credential was compromised"),
    ("opt-out", "opt-in", "A user takes part again"),
    ("opt-out", "opt-out-initiated", "A user asked to take part no longer"),
    ("opt-out", "opt-out-cancelled", "A user took that back"),
    ("opt-out", "opt-out-effective", "A user takes part no longer"),
    ("recovery", "recovery-activated", "A user began to recover an account"),
    ("recovery", "recovery-information-changed", "Recovery information was changed"),
    ("session", "sessions-revoked", "All sessions were ended (deprecated: CAEP session-revoked)"),
];

/// Category, name, description.
#[rustfmt::skip]
const SSF_EVENTS: &[(&str, &str, &str)] = &[
    ("stream", "verification", "A stream's delivery is being verified"),
    ("stream", "stream-updated", "A stream's status changed"),
];
