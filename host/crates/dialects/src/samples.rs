//! Sample events of every product: those that identity providers would send on a busy morning at two fictitious
//! companies, Harbour Books and Northwind Clinics. Addresses are from the ranges reserved for documentation (RFC 5737,
//! RFC 3849, RFC 2606).
//!
//! Applications, organizations, roles, addresses and failed attempts vary, so that each example filter finds events to
//! drop, redact, enrich, flag or translate, and others to leave unchanged.

use setgate_domain::json::Object;

use crate::dialect::DIALECTS;
use crate::form::BodyForm;

/// The samples of one product.
#[derive(Debug)]
pub(crate) struct SampleFile {
    /// The product: also the name of its source in the demo.
    pub(crate) product: &'static str,
    /// One JSON object of sample names and bodies.
    pub(crate) json: &'static str,
}

/// One sample event.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The product: `wso2`, `asgardeo`, `logto`, `platform` or `set`. The demo's sources have the same names.
    pub product: &'static str,
    /// The form of the product's event bodies.
    pub form: &'static BodyForm,
    /// Describes the sample; unique within its product.
    pub name: String,
    /// The body as the product sends it: compact JSON.
    pub body: String,
}

/// All samples by product, ordered by time within each.
pub fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (form, SampleFile { product: seed, json }) in files() {
        let file = Object::parse(json).expect("the files are part of the program, and a test reads them all");
        for (name, body) in file.iter() {
            samples.push(Sample { product: seed, form, name: name.to_owned(), body: compact(body) });
        }
    }
    samples
}

fn files() -> impl Iterator<Item = (&'static BodyForm, &'static SampleFile)> {
    let forms = DIALECTS.iter().filter_map(|dialect| dialect.form.as_ref());
    forms.flat_map(|form| form.samples.iter().map(move |file| (form, file)))
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
    fn sample_names_are_unique_per_product() {
        let all = samples();
        let names: BTreeSet<_> = all.iter().map(|sample| (sample.product, sample.name.as_str())).collect();
        assert_eq!(names.len(), all.len());
        for (_, SampleFile { product: seed, .. }) in files() {
            assert!(all.iter().filter(|sample| sample.product == *seed).count() >= 8, "{seed}");
        }
    }

    #[test]
    fn compacting_preserves_strings() {
        assert_eq!(compact("{ \"a b\" : \"c \\\" d\\\\\" ,\n \"e\": [ 1, 2 ] }"), r#"{"a b":"c \" d\\","e":[1,2]}"#);
    }
}
