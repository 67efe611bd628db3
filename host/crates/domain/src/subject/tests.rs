//! Subjects of all formats, with user-controlled members in the input.

use super::*;

fn user(id: &str) -> Option<Subject> {
    Some(Subject::User(id.to_owned()))
}

fn named(name: &str) -> Option<Subject> {
    Some(Subject::Named(name.to_owned()))
}

#[test]
fn of_wso2_events() {
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
        let uri = format!("{}{name}", crate::catalogue::WSO2_BASE);
        assert_eq!(wso2(&uri, &Object::parse(&event).unwrap()), expected, "{name} {event}");
    }
}

#[test]
fn of_logto_events() {
    for (event, body, expected) in [
        ("PostSignIn", r#"{"userId":"u1","user":{"id":"u2"}}"#, user("u1")),
        ("PostSignIn", r#"{"user":{"id":"u2"}}"#, user("u2")),
        ("User.Created", r#"{"data":{"id":"u3"}}"#, user("u3")),
        ("User.Created", r#"{"matchedRoute":"/users","params":{},"data":{"id":"u3"}}"#, user("u3")),
        ("User.Deleted", r#"{"data":null,"params":{"userId":"u4"}}"#, user("u4")),
        ("User.Data.Updated", r#"{"params":{"userId":"u5"},"data":{"id":"x"}}"#, user("u5")),
        ("User.Data.Updated", r#"{"path":"/users/u5/custom-data","data":{"id":"x"}}"#, None),
        ("User.Data.Updated", r#"{"path":"/users/u5/profile","params":{},"data":{"id":"x"}}"#, None),
        (
            "User.Roles.Updated",
            r#"{"matchedRoute":"/roles/:id/users","params":{"id":"r"},"data":{"id":"u6"}}"#,
            user("u6"),
        ),
        ("TrustedDevice.Created", r#"{"data":{"id":"d1","userId":"u7"}}"#, user("u7")),
        ("TrustedDevice.Deleted", r#"{"data":null,"params":{"userId":"u7","id":"d1"}}"#, user("u7")),
        ("Organization.Membership.Updated", r#"{"organizationId":"o","params":{"id":"o","userId":"u8"}}"#, user("u8")),
        ("Organization.Membership.Updated", r#"{"organizationId":"o","addedUserIds":["a","b"]}"#, None),
        ("Role.Created", r#"{"data":{"id":"r1"}}"#, None),
        ("Grant.LimitExceeded", r#"{"userId":"u9","applicationId":"a"}"#, user("u9")),
        ("Identifier.Lockout", r#"{"value":"m@example.com"}"#, named("m@example.com")),
        ("Message.RateLimited", r#"{"recipient":"+15550100"}"#, named("+15550100")),
        ("New.Event", r#"{"params":{"userId":"u10"},"data":{"id":"x","userId":"x"}}"#, user("u10")),
    ] {
        assert_eq!(logto(event, &Object::parse(body).unwrap()), expected, "{event} {body}");
    }
}

#[test]
fn of_platform_events() {
    for (category, body, expected) in [
        ("mfa", r#"{"data":{"user":{"id":"u1"},"user_id":"u2"}}"#, user("u1")),
        ("mfa", r#"{"data":{"user_id":12345678901234567890123}}"#, user("12345678901234567890123")),
        ("sso", r#"{"data":{"user":"u3"}}"#, user("u3")),
        ("user", r#"{"data":{"id":"u4","email":"m@example.com"}}"#, user("u4")),
        ("oauth", r#"{"data":{"id":"client"}}"#, None),
        ("security", r#"{"data":{"email":"m@example.com"}}"#, named("m@example.com")),
        ("sso", r#"{"data":{"user":{"email":"m@example.com"}}}"#, None),
        ("user", r#"{"data":{"id":""}}"#, None),
        ("user", "{}", None),
    ] {
        assert_eq!(platform(category, "x", &Object::parse(body).unwrap()), expected, "{category} {body}");
    }
}

/// User-controlled data with members that look like IDs. None of it may become the subject.
const WRITTEN: &str = r#""id":"evil","userId":"evil","user_id":"evil","sub":"evil","subject":"evil","user":{"id":"evil"},
    "sub_id":{"format":"opaque","id":"evil"},"params":{"userId":"evil"},"data":{"id":"evil"},"email":"evil","username":"evil""#;

#[test]
fn nothing_that_an_end_user_wrote_names_the_subject_of_any_event() {
    use crate::catalogue::{self, Product};
    let nested =
        format!(r#""customData":{{{WRITTEN}}},"profile":{{{WRITTEN}}},"metadata":{{{WRITTEN}}},"name":"evil""#);
    let never_evil = |what: &str, found: Option<Subject>| {
        assert!(found.as_ref().is_none_or(|subject| subject.as_str() != "evil"), "{what}: {found:?}");
        found
    };
    for entry in catalogue::all() {
        let name = entry.name;
        match entry.product {
            Product::Logto => {
                // The responses of the routes for custom data and profile contain only user-controlled data.
                for route in ["custom-data", "profile", "logto-configs"] {
                    let hook = format!(
                        r#"{{"event":"{name}","path":"/api/users/u-1/{route}","matchedRoute":"/users/:userId/{route}",
                            "params":{{"userId":"u-1"}},"data":{{{WRITTEN}}}}}"#
                    );
                    let found = never_evil(name, logto(name, &Object::parse(&hook).unwrap()));
                    if name.starts_with("User.") {
                        assert_eq!(found, user("u-1"), "{name}");
                    }
                    let unnamed = hook.replace(r#""params":{"userId":"u-1"},"#, "");
                    never_evil(name, logto(name, &Object::parse(&unnamed).unwrap()));
                }
                let record = format!(r#"{{"id":"u-1",{nested}}}"#);
                let hook = format!(r#"{{"event":"{name}","userId":"u-1","user":{record},"data":{record}}}"#);
                never_evil(name, logto(name, &Object::parse(&hook).unwrap()));
            }
            Product::Wso2 => {
                let claims = format!(
                    r#"[{{"uri":"http://wso2.org/claims/nickname","value":"evil",{WRITTEN}}},{{"uri":"http://wso2.org/claims/userid","value":"evil"}}]"#
                );
                for user in [
                    format!(r#"{{"id":"u-1","claims":{claims},"addedClaims":{claims},{nested}}}"#),
                    format!(r#"{{"claims":{claims},"updatedClaims":{claims},{nested}}}"#),
                ] {
                    let event =
                        format!(r#"{{"user":{user},"role":{{{WRITTEN}}},"consent":{{"subjectId":"evil"}},{nested}}}"#);
                    let found = never_evil(name, wso2(&entry.uri, &Object::parse(&event).unwrap()));
                    assert_eq!(found.is_some(), user.contains("u-1"), "{name}");
                }
            }
            Product::Platform => {
                for data in [
                    format!(r#"{{"user_id":"u-1",{nested},"id":"evil"}}"#),
                    format!(r#"{{"user":{{"id":"u-1",{nested}}},"userId":"evil","id":"evil","email":"evil"}}"#),
                    format!(r#"{{{nested}}}"#),
                ] {
                    let body =
                        Object::parse(&data).map(|_| format!(r#"{{"type":"{name}","data":{data},{nested}}}"#)).unwrap();
                    let found = never_evil(name, platform(entry.category, name, &Object::parse(&body).unwrap()));
                    assert_eq!(found.is_some(), data.contains("u-1"), "{name}");
                }
            }
            Product::Caep | Product::Risc | Product::Ssf => {
                let event = format!(r#"{{{nested},"reason_user":{{{WRITTEN}}}}}"#);
                let claims =
                    format!(r#"{{"sub_id":{{"format":"opaque","id":"u-1"}},"events":{{"{}":{event}}}}}"#, entry.uri);
                assert_eq!(set(&Object::parse(&claims).unwrap()), user("u-1"), "{name}");
            }
        }
    }
}

#[test]
fn of_plain_sets() {
    for (claims, expected) in [
        (r#"{"sub_id":{"format":"iss_sub","iss":"i","sub":"u1"},"sub":"x"}"#, user("u1")),
        (r#"{"sub_id":{"format":"opaque","id":"u2"}}"#, user("u2")),
        (r#"{"sub_id":{"format":"email","email":"m@example.com"}}"#, named("m@example.com")),
        (r#"{"sub_id":{"format":"account","uri":"acct:m@example.com"}}"#, named("acct:m@example.com")),
        (r#"{"sub_id":{"format":"phone_number","phone_number":"+1"}}"#, named("+1")),
        (
            r#"{"sub_id":{"format":"complex","device":{"format":"opaque","id":"d"},"user":{"format":"opaque","id":"u"}}}"#,
            user("u"),
        ),
        (r#"{"sub_id":{"format":"complex","device":{"format":"opaque","id":"d"}}}"#, named("d")),
        (r#"{"sub_id":{"user":{"format":"opaque","id":"u"}}}"#, user("u")),
        (
            r#"{"sub_id":{"format":"aliases","identifiers":[{"format":"?"},{"format":"did","url":"did:x:1"}]}}"#,
            named("did:x:1"),
        ),
        (r#"{"sub_id":{"format":"?"},"sub":"u3"}"#, user("u3")),
        (r#"{"events":{"urn:x":{"subject":{"subject_type":"iss-sub","iss":"i","sub":"u4"}}}}"#, user("u4")),
        (r#"{"events":{"urn:x":{}}}"#, None),
    ] {
        assert_eq!(set(&Object::parse(claims).unwrap()), expected, "{claims}");
    }
}

#[test]
fn nothing_endless_is_followed_or_kept() {
    let nested = format!("{}{{\"format\":\"opaque\",\"id\":\"u\"}}{}", r#"{"user":"#.repeat(5), "}".repeat(5));
    assert_eq!(set(&Object::parse(&format!("{{\"sub_id\":{nested}}}")).unwrap()), None);
    let long = format!("{{\"sub\":\"{}\"}}", "x".repeat(513));
    assert_eq!(set(&Object::parse(&long).unwrap()), None);
}
