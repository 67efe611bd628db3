//! Translates events from the products' own formats to CAEP and RISC events, for receivers of the Shared Signals
//! Framework. Events without a counterpart pass unchanged.

use setgate_sdk::serde_json::Map;
use setgate_sdk::{Event, Result, Value, Verdict, json, log};

setgate_sdk::export!(filter);

/// Product event types, the CAEP or RISC event they become, and its known members. Sources: CAEP 1.0 section 3 and RISC
/// 1.0 section 2.
const EVENTS: [(&str, &str, &str); 15] = [
    ("sessionRevoked session.terminated", "caep/session-revoked", ""),
    ("sessionEstablished PostSignIn session.created", "caep/session-established", ""),
    ("sessionPresented", "caep/session-presented", ""),
    ("credentialUpdated", "caep/credential-change", "credential_type=password change_type=update"),
    ("PostResetPassword user.password*", "caep/credential-change", "credential_type=password change_type=update"),
    ("mfa.enabled", "caep/credential-change", "credential_type=app change_type=create"),
    ("mfa.disabled", "caep/credential-change", "credential_type=app change_type=delete"),
    ("*passkey_registered", "caep/credential-change", "credential_type=fido2-platform change_type=create"),
    ("PostSignInAdaptiveMfaTriggered", "caep/risk-level-change", "principal=USER current_level=MEDIUM"),
    ("*suspicious_login", "caep/risk-level-change", "principal=USER current_level=HIGH"),
    ("userAccountLocked userDisabled User.SuspensionStatus.Updated *lockout *_locked", "risc/account-disabled", ""),
    ("userAccountUnlocked userEnabled", "risc/account-enabled", ""),
    ("userDeleted User.Deleted user.deleted", "risc/account-purged", ""),
    ("user.email_changed", "risc/identifier-changed", ""),
    ("*password_breach*", "risc/credential-compromise", "credential_type=password"),
];

/// The entry point of the filter.
pub fn filter(event: &Event) -> Result<Verdict> {
    let row = EVENTS.iter().find(|(names, ..)| names.split(' ').any(|name| event.is(name)));
    let Some((_, name, members)) = row else { return Ok(Verdict::pass()) };
    let Some(subject) = subject(event) else {
        log::warn!("{} does not say whom it is about: passed as it is", event.event_type());
        return Ok(Verdict::pass());
    };
    let members = members.split(' ').filter_map(|member| member.split_once('='));
    let mut body: Map<String, Value> = members.map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let mut set = |name: &str, value: Option<String>| value.map(|value| body.insert(name.to_owned(), json!(value)));

    // Logto uses one event type for both the start and the end of a suspension.
    let ended = event.body().pointer("/data/isSuspended") == Some(&json!(false));
    let name = if ended { "risc/account-enabled" } else { name };
    let (profile, name) = name.split_once('/').expect("each row of the table has a profile");
    set(
        "credential_type",
        event.text(["/credentialType"]).map(|credential| credential.to_lowercase().replace('_', "-")),
    );
    set("change_type", event.text(["/action"]).filter(|_| name == "credential-change").map(change_type));
    set(
        "new-value",
        event.text(["/data/new_email", "/data/email"]).filter(|_| name == "identifier-changed").map(Into::into),
    );
    if profile == "caep" {
        set("initiating_entity", event.text(["/initiatorType"]).map(initiator));
        body.insert("event_timestamp".to_owned(), json!(event.issued_at()));
    }

    let kept = ["iss", "iat", "jti", "aud", "txn"].into_iter();
    let mut claims: Map<String, Value> =
        kept.filter_map(|claim| Some((claim.to_owned(), event.claims().get(claim)?.clone()))).collect();
    claims.insert("sub_id".to_owned(), subject);
    let uri = format!("https://schemas.openid.net/secevent/{profile}/event-type/{name}");
    claims.insert("events".to_owned(), json!({ (uri): body }));
    Verdict::replace(claims)
}

/// The subject of the event as a subject identifier (RFC 9493), which these profiles require in `sub_id`.
fn subject(event: &Event) -> Option<Value> {
    let user = event.text(["/user/id", "/userId", "/params/userId", "/data/user_id", "/data/user/id", "/data/id"]);
    let by_id = || Some(json!({ "format": "iss_sub", "iss": event.issuer(), "sub": user.or(event.subject())? }));
    event.claims().get("sub_id").cloned().or_else(by_id)
}

fn change_type(action: &str) -> String {
    match action {
        "ADD" | "CREATE" | "REGISTER" => "create",
        "DELETE" | "REMOVE" => "delete",
        "REVOKE" => "revoke",
        _ => "update",
    }
    .to_owned()
}

fn initiator(kind: &str) -> String {
    if matches!(kind, "ADMIN" | "USER") { kind.to_lowercase() } else { "system".to_owned() }
}

#[test]
fn cases() {
    setgate_sdk::testing::cases(filter, include_str!("../cases.json"));
}
