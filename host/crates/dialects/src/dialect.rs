//! The list of dialects.

use http::HeaderMap;
use setgate_domain::source::{Form, MacHeader};
use setgate_domain::subscription::SigningScheme;

use crate::catalogue::Product;
use crate::form::BodyForm;
use crate::scheme::Scheme;
use crate::{hub, logto, platform, set, webhook, wso2};

/// Everything that is specific to one product or one signature scheme.
#[derive(Debug)]
pub struct Dialect {
    /// Name of the product or scheme.
    pub title: &'static str,
    /// Its signatures, of requests to a source and of deliveries.
    pub scheme: Option<Scheme>,
    /// The form of its event bodies.
    pub form: Option<BodyForm>,
    /// The event types that it defines, by product or specification.
    pub products: &'static [Product],
    /// The short name of an event type URI that is not in the catalogue, if the URI is in the product's own name space.
    /// `None` if its events have URIs of Setgate.
    pub(crate) unlisted: Option<fn(&str) -> Option<String>>,
}

/// All dialects. To add one, add its folder and its line.
pub static DIALECTS: [Dialect; 6] =
    [wso2::DIALECT, logto::DIALECT, platform::DIALECT, set::DIALECT, hub::DIALECT, webhook::DIALECT];

/// All signature schemes.
pub fn schemes() -> impl Iterator<Item = &'static Scheme> {
    DIALECTS.iter().filter_map(|dialect| dialect.scheme.as_ref())
}

/// All forms of request bodies.
pub fn forms() -> impl Iterator<Item = &'static BodyForm> {
    DIALECTS.iter().filter_map(|dialect| dialect.form.as_ref())
}

/// The form of a source's request bodies.
pub fn form_of(form: Form) -> &'static BodyForm {
    forms().find(|known| known.form == form).expect("a test looks up each variant")
}

/// The scheme of a source's proof.
pub fn scheme_of_proof(header: MacHeader) -> &'static Scheme {
    schemes().find(|scheme| scheme.proof == header).expect("a test looks up each variant")
}

/// The scheme of a subscription's signatures.
pub fn scheme_of_signing(scheme: SigningScheme) -> &'static Scheme {
    schemes().find(|known| known.signing == scheme).expect("a test looks up each variant")
}

/// The sender's delivery id, which stays the same across retries.
pub fn delivery_id(headers: &HeaderMap) -> Option<&str> {
    let of_schemes = schemes().flat_map(|scheme| scheme.delivery_id_headers);
    let names = of_schemes.chain(&["x-delivery-id", "idempotency-key"]);
    names.filter_map(|name| headers.get(*name)).find_map(|value| value.to_str().ok())
}

/// Whether a header, in lower case, is set by a signature scheme. Subscriptions cannot set such a header themselves.
pub fn is_set_by_scheme(header: &str) -> bool {
    let matches = |reserved: &&str| match reserved.strip_suffix('*') {
        Some(prefix) => header.starts_with(prefix),
        None => header == *reserved,
    };
    schemes().any(|scheme| scheme.reserved_headers.iter().any(&matches))
}

#[cfg(test)]
mod tests {
    use schemars::{JsonSchema, schema_for};
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::signing::{KeyKind, generate};
    use crate::testing::BODY;

    /// All variants of an enum of the domain, from its schema.
    fn variants<T: JsonSchema + DeserializeOwned>() -> Vec<T> {
        let schema = schema_for!(T).to_value();
        let names = schema["enum"].as_array().expect("names without descriptions: those are in the dialects").clone();
        assert!(names.len() > 2, "{schema}");
        names.into_iter().map(|name| serde_json::from_value(name).unwrap()).collect()
    }

    #[test]
    fn every_stored_name_has_a_dialect() {
        for header in variants::<MacHeader>() {
            let scheme = scheme_of_proof(header);
            assert_eq!(serde_json::to_value(header).unwrap(), scheme.name(), "the two stored names are the same");
        }
        for scheme in variants::<SigningScheme>() {
            assert_eq!(serde_json::to_value(scheme).unwrap(), scheme_of_signing(scheme).name());
        }
        for form in variants::<Form>() {
            assert_eq!(serde_json::to_value(form).unwrap(), form_of(form).name);
        }
        assert_eq!(forms().count(), variants::<Form>().len());
        assert_eq!(schemes().count(), variants::<SigningScheme>().len());
        assert_eq!(schemes().count(), variants::<MacHeader>().len());
    }

    #[test]
    fn signature_headers_are_reserved() {
        for scheme in schemes() {
            let key = generate(scheme.signing, KeyKind::Symmetric).unwrap();
            let now = setgate_domain::time::Timestamp::from_millis(0);
            let secret = match scheme.signing {
                SigningScheme::Standard => key.secret,
                _ => setgate_domain::secret::Secret::new("It's a Secret to Everybody".to_owned()),
            };
            let sent = crate::sign_as_sender(scheme, &secret, "id", now, BODY).unwrap();
            for (name, _) in sent {
                assert!(is_set_by_scheme(name), "{name}");
            }
            assert!(is_set_by_scheme(scheme.header()), "{}", scheme.header());
        }
        assert!(is_set_by_scheme("webhook-delivery"), "the whole prefix of Standard Webhooks");
        assert!(!is_set_by_scheme("authorization") && !is_set_by_scheme("x-webhook-id"));
    }

    #[test]
    fn documentation_names_every_form_and_header() {
        let sources = include_str!("../../../../docs/reference/sources.md").to_ascii_lowercase();
        let deliveries = include_str!("../../../../docs/reference/delivery.md").to_ascii_lowercase();
        let filter_run = include_str!("../../../../docs/reference/filter-run.md");
        for form in forms() {
            assert!(sources.contains(&format!("| `{}` |", form.name)), "{} in sources.md", form.name);
            assert!(filter_run.contains(&format!("`{}`", form.name)), "{} in filter-run.md", form.name);
        }
        for scheme in schemes() {
            assert!(sources.contains(&format!("`\"header\": \"{}\"`", scheme.name())), "{}", scheme.name());
            scheme
                .signature_headers
                .iter()
                .for_each(|header| assert!(sources.contains(header), "{header} in sources.md"));
            assert!(deliveries.contains(&format!("| `{}` |", scheme.name())), "{} in delivery.md", scheme.name());
            assert!(deliveries.contains(scheme.header()), "{} in delivery.md", scheme.header());
        }
    }
}
