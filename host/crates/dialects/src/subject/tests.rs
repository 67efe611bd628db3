//! User-controlled members in events of every product.

use super::testing::user;
use super::*;
use crate::{catalogue, logto, platform, set, wso2};

/// User-controlled data with members that look like IDs. None of it may become the subject.
const WRITTEN: &str = r#""id":"evil","userId":"evil","user_id":"evil","sub":"evil","subject":"evil","user":{"id":"evil"},
    "sub_id":{"format":"opaque","id":"evil"},"params":{"userId":"evil"},"data":{"id":"evil"},"email":"evil","username":"evil""#;

#[test]
fn end_user_data_never_becomes_the_subject() {
    let nested =
        format!(r#""customData":{{{WRITTEN}}},"profile":{{{WRITTEN}}},"metadata":{{{WRITTEN}}},"name":"evil""#);
    let never_evil = |what: &str, found: Option<Subject>| {
        assert!(found.as_ref().is_none_or(|subject| subject.as_str() != "evil"), "{what}: {found:?}");
        found
    };
    for entry in catalogue::event_types() {
        let name = entry.name;
        match entry.product.name {
            "logto" => {
                // The responses of the routes for custom data and profile contain only user-controlled data.
                for route in ["custom-data", "profile", "logto-configs"] {
                    let hook = format!(
                        r#"{{"event":"{name}","path":"/api/users/u-1/{route}","matchedRoute":"/users/:userId/{route}",
                            "params":{{"userId":"u-1"}},"data":{{{WRITTEN}}}}}"#
                    );
                    let found = never_evil(name, logto::subject::of(name, &Object::parse(&hook).unwrap()));
                    if name.starts_with("User.") {
                        assert_eq!(found, user("u-1"), "{name}");
                    }
                    let unnamed = hook.replace(r#""params":{"userId":"u-1"},"#, "");
                    never_evil(name, logto::subject::of(name, &Object::parse(&unnamed).unwrap()));
                }
                let record = format!(r#"{{"id":"u-1",{nested}}}"#);
                let hook = format!(r#"{{"event":"{name}","userId":"u-1","user":{record},"data":{record}}}"#);
                never_evil(name, logto::subject::of(name, &Object::parse(&hook).unwrap()));
            }
            "wso2" => {
                let claims = format!(
                    r#"[{{"uri":"http://wso2.org/claims/nickname","value":"evil",{WRITTEN}}},{{"uri":"http://wso2.org/claims/userid","value":"evil"}}]"#
                );
                for user in [
                    format!(r#"{{"id":"u-1","claims":{claims},"addedClaims":{claims},{nested}}}"#),
                    format!(r#"{{"claims":{claims},"updatedClaims":{claims},{nested}}}"#),
                ] {
                    let event =
                        format!(r#"{{"user":{user},"role":{{{WRITTEN}}},"consent":{{"subjectId":"evil"}},{nested}}}"#);
                    let found = never_evil(name, wso2::subject::of(&entry.uri, &Object::parse(&event).unwrap()));
                    assert_eq!(found.is_some(), user.contains("u-1"), "{name}");
                }
            }
            "platform" => {
                for data in [
                    format!(r#"{{"user_id":"u-1",{nested},"id":"evil"}}"#),
                    format!(r#"{{"user":{{"id":"u-1",{nested}}},"userId":"evil","id":"evil","email":"evil"}}"#),
                    format!(r#"{{{nested}}}"#),
                ] {
                    let body =
                        Object::parse(&data).map(|_| format!(r#"{{"type":"{name}","data":{data},{nested}}}"#)).unwrap();
                    let found =
                        never_evil(name, platform::subject::of(entry.category, name, &Object::parse(&body).unwrap()));
                    assert_eq!(found.is_some(), data.contains("u-1"), "{name}");
                }
            }
            "caep" | "risc" | "ssf" => {
                let event = format!(r#"{{{nested},"reason_user":{{{WRITTEN}}}}}"#);
                let claims =
                    format!(r#"{{"sub_id":{{"format":"opaque","id":"u-1"}},"events":{{"{}":{event}}}}}"#, entry.uri);
                assert_eq!(set::subject::of_claims(&Object::parse(&claims).unwrap()), user("u-1"), "{name}");
            }
            other => panic!("a test for the events of {other}"),
        }
    }
}
