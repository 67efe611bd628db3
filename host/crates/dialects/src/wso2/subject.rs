//! The subject of an event.

use serde_json::value::RawValue;
use setgate_domain::json::Object;

use super::events::BASE;
use crate::subject::{Subject, identifier_member};

/// The subject of a WSO2 event, given its type and the value of its member: `user.id`. Only a failed login has no ID
/// and contains the account name of the attempt in `user.claims`: the user name is preferred to the e-mail address.
/// Claims in all other events may be chosen by users, such as the name requested in a failed registration.
pub(crate) fn of(uri: &str, event: &Object<'_>) -> Option<Subject> {
    let user = event.object("user")?;
    let failed_login = || uri.strip_prefix(BASE) == Some("login/event-type/loginFailed");
    let named = || failed_login().then(|| claim(&user)).flatten().map(Subject::Named);
    identifier_member(&user, "id").map(Subject::User).or_else(named)
}

/// Claims that identify a user, in order of preference.
const NAMES: [&str; 2] = ["http://wso2.org/claims/username", "http://wso2.org/claims/emailaddress"];

fn claim(user: &Object<'_>) -> Option<String> {
    let claims: Vec<&RawValue> = serde_json::from_str(user.get("claims")?).ok()?;
    let claims: Vec<Object<'_>> = claims.iter().filter_map(|claim| Object::parse(claim.get()).ok()).collect();
    NAMES.iter().find_map(|name| {
        claims
            .iter()
            .find(|claim| claim.string("uri").as_deref() == Some(name))
            .and_then(|claim| identifier_member(claim, "value"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::testing::{named, user};

    #[test]
    fn finds_subject_of_wso2_events() {
        let claims = r#""claims":[{"uri":"http://wso2.org/claims/emailaddress","value":"m@example.com"},
            {"uri":"http://wso2.org/claims/username","value":"mia"}]"#;
        for (name, event, expected) in [
            ("login/event-type/loginSuccess", format!(r#"{{"user":{{"id":"u-1",{claims}}}}}"#), user("u-1")),
            ("login/event-type/loginFailed", format!(r#"{{"user":{{{claims}}}}}"#), named("mia")),
            ("login/event-type/loginFailed", r#"{"user":{"claims":"?"}}"#.to_owned(), None),
            // The requested name may belong to another user, which may be why the registration failed.
            ("registration/event-type/registrationFailed", format!(r#"{{"user":{{{claims}}}}}"#), None),
            ("user/event-type/userProfileUpdated", format!(r#"{{"user":{{{claims}}}}}"#), None),
            ("role/event-type/roleCreated", r#"{"role":{"id":"r-1","users":[{"id":"u-2"}]}}"#.to_owned(), None),
        ] {
            let uri = format!("{}{name}", BASE);
            assert_eq!(of(&uri, &Object::parse(&event).unwrap()), expected, "{name} {event}");
        }
    }
}
