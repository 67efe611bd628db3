//! Detects bodies of a different form, so that the error for a misconfigured source names the form instead of a missing
//! claim.

use setgate_domain::json::Object;
use setgate_domain::source::Source;

use super::NormalizeError;
use crate::dialect::{form_of, forms};

/// Refuses a body that lacks the characteristic members of its source's form and looks like another form. An
/// unrecognised body passes, and its error then names the missing claims.
pub(crate) fn check_form(source: &Source, body: &Object<'_>) -> Result<(), NormalizeError> {
    let form = form_of(source.form);
    if (form.has_characteristic_members)(body) {
        return Ok(());
    }
    let Some((looks_like, advice)) = looks_like(body) else { return Ok(()) };
    let (source_name, configured, expected) = (source.name.to_string(), form.name, form.expected);
    Err(NormalizeError::WrongForm { source_name, configured, expected, looks_like, advice })
}

const OTHER_SOURCE: &str = "send it to a source of its own form, or change the form of this one";
const NOT_AN_EVENT: &str = "only events are accepted here";

/// The detected form of a body, and the advice for it.
fn looks_like(body: &Object<'_>) -> Option<(&'static str, &'static str)> {
    let event = || forms().find(|form| (form.looks_like_event)(body)).map(|form| (form.event, OTHER_SOURCE));
    let other = || forms().find_map(|form| (form.describe_non_event)(body)).map(|what| (what, NOT_AN_EVENT));
    event().or_else(other)
}
