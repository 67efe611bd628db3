//! The subject of an event.

use setgate_domain::json::Object;

use crate::subject::{Subject, first};

/// The subject of a platform event: `user.id`, `user_id`, `userId` or `user` in `data`, and also `id` for events of the
/// category `user`. Only events that may occur before a user is known (category `security`, and a failed challenge)
/// fall back to the attempted e-mail address or user name. In other events, users can choose these.
pub(crate) fn of(category: &str, name: &str, body: &Object<'_>) -> Option<Subject> {
    let data = body.object("data")?;
    let places = ["user.id", "user_id", "userId", "user", "id"];
    let places = if category == "user" { &places[..] } else { &places[..4] };
    let user = first(&data, places).map(Subject::User);
    if category != "security" && name != "mfa.challenge_failed" {
        return user;
    }
    let named = ["user.email", "email", "user.username", "username"];
    user.or_else(|| first(&data, &named).map(Subject::Named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::testing::{named, user};

    #[test]
    fn finds_subject_of_platform_events() {
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
            assert_eq!(of(category, "x", &Object::parse(body).unwrap()), expected, "{category} {body}");
        }
    }
}
