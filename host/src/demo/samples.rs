//! Sample events of every product: those that identity providers would send on a busy morning at two fictitious
//! companies, Harbour Books and Northwind Clinics. Addresses are from the ranges reserved for documentation (RFC 5737,
//! RFC 3849, RFC 2606).
//!
//! Applications, organizations, roles, addresses and failed attempts vary, so that each example filter finds events to
//! drop, redact, enrich, flag or translate, and others to leave unchanged.

use setgate_domain::json::Object;
use setgate_domain::source::Form;

/// One sample event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The product: `wso2`, `asgardeo`, `logto`, `platform` or `set`. The demo's sources have the same names.
    pub seed: &'static str,
    /// The form of the product's event bodies.
    pub form: Form,
    /// Describes the sample; unique within its product.
    pub name: String,
    /// The body as the product sends it: compact JSON.
    pub body: String,
}

/// Each file is one object of sample names and bodies.
const FILES: [(&str, Form, &str); 5] = [
    ("wso2", Form::Wso2, include_str!("events/wso2.json")),
    ("asgardeo", Form::Wso2, include_str!("events/asgardeo.json")),
    ("logto", Form::Logto, include_str!("events/logto.json")),
    ("platform", Form::Platform, include_str!("events/platform.json")),
    ("set", Form::Set, include_str!("events/set.json")),
];

/// All samples by product, ordered by time within each.
pub fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (seed, form, file) in FILES {
        let file = Object::parse(file).expect("the files are part of the program, and a test reads them all");
        for (name, body) in file.iter() {
            samples.push(Sample { seed, form, name: name.to_owned(), body: compact(body) });
        }
    }
    samples
}

/// Removes white space: the files are formatted for readability, but products send compact JSON.
fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        if quoted || !c.is_ascii_whitespace() {
            out.push(c);
        }
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_seed_has_its_samples_under_names_of_their_own() {
        let all = samples();
        let names: BTreeSet<_> = all.iter().map(|sample| (sample.seed, sample.name.as_str())).collect();
        assert_eq!(names.len(), all.len());
        for (seed, _, _) in FILES {
            assert!(all.iter().filter(|sample| sample.seed == seed).count() >= 8, "{seed}");
        }
    }

    #[test]
    fn compacting_leaves_strings_alone() {
        assert_eq!(compact("{ \"a b\" : \"c \\\" d\\\\\" ,\n \"e\": [ 1, 2 ] }"), r#"{"a b":"c \" d\\","e":[1,2]}"#);
    }
}
