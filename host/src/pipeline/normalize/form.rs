//! Detects bodies of a different form, so that the error for a misconfigured source names the form instead of a missing
//! claim.

use setgate_domain::json::Object;
use setgate_domain::source::{Form, Source};

use super::Refusal;

/// Refuses a body that lacks the characteristic members of its source's form and looks like another form. An
/// unrecognised body passes, and its error then names the missing claims.
pub(super) fn expect(source: &Source, body: &Object<'_>) -> Result<(), Refusal> {
    if has_marks(source.form, body) {
        return Ok(());
    }
    let Some((looks_like, advice)) = looks_like(body) else { return Ok(()) };
    let (configured, expected) = describe(source.form);
    Err(Refusal::WrongForm { source_name: source.name.to_string(), configured, expected, looks_like, advice })
}

fn has_marks(form: Form, body: &Object<'_>) -> bool {
    match form {
        // Both forms are SETs: a WSO2 server may be configured to send CAEP events, and a plain SET may come from WSO2.
        Form::Wso2 | Form::Set => body.get("events").is_some(),
        Form::Logto => body.get("event").is_some(),
        Form::Platform => body.get("type").is_some() && (body.get("timestamp").is_some() || body.get("data").is_some()),
    }
}

/// The name of a form in the configuration, and a description of its bodies.
fn describe(form: Form) -> (&'static str, &'static str) {
    match form {
        Form::Wso2 => ("wso2", "a SET as JSON with iss, jti, iat and events"),
        Form::Logto => ("logto", "a Logto webhook body with `event` and `createdAt`"),
        Form::Platform => ("platform", "an event with `type`, `timestamp` and `data`"),
        Form::Set => ("set", "a SET as JSON with iss, jti, iat and events (RFC 8417)"),
    }
}

const OTHER_SOURCE: &str = "send it to a source of its own form, or change the form of this one";
const NOT_AN_EVENT: &str = "only events are taken here";

/// The detected form of a body, and the advice for it.
fn looks_like(body: &Object<'_>) -> Option<(&'static str, &'static str)> {
    let has = |key| body.get(key).is_some();
    let text = |key| body.string(key).is_some();
    Some(if body.object("events").is_some() && has("rci") {
        ("a WSO2 or Asgardeo event", OTHER_SOURCE)
    } else if body.object("events").is_some() && (has("iss") || has("jti")) {
        ("a SET (RFC 8417)", OTHER_SOURCE)
    } else if text("event") && (has("hookId") || has("createdAt")) {
        ("a Logto event", OTHER_SOURCE)
    } else if text("type") && has("timestamp") {
        ("an event of the platform form", OTHER_SOURCE)
    } else if has("channelsSubscribed") || has("eventProfile") {
        ("a request to create a WSO2 webhook", NOT_AN_EVENT)
    } else if has("sets") {
        ("an answer to a poll for SETs (RFC 8936)", NOT_AN_EVENT)
    } else if has("ack") || has("setErrs") || has("returnImmediately") || has("maxEvents") {
        ("a poll request for SETs (RFC 8936)", NOT_AN_EVENT)
    } else if text("err") {
        ("an error answer to a pushed SET (RFC 8935)", NOT_AN_EVENT)
    } else {
        return None;
    })
}
