//! The subject of an event.

use setgate_domain::json::Object;

use crate::subject::{Subject, first};

/// The subject of a Logto event.
///
/// Logto sends data hooks from its own flows and from routes of its Management API. The hook of a route contains
/// `params` from the request's path, and the response of the route as `data`. For `/users/:userId/custom-data` and
/// `/users/:userId/profile`, that is data written by the user. So the subject is the user in the path, and `data.id`
/// only if `data` is a complete user record.
pub(crate) fn of(event: &str, body: &Object<'_>) -> Option<Subject> {
    let user = |places: &[&str]| first(body, places).map(Subject::User);
    let named = |place: &str| first(body, &[place]).map(Subject::Named);
    match event {
        "Identifier.Lockout" => user(&["userId"]).or_else(|| named("value")),
        "Message.RateLimited" => user(&["userId"]).or_else(|| named("recipient")),
        "Organization.Membership.Updated" => user(&["params.userId"]),
        // One event for each user, with the user record as `data` for every route.
        "User.Roles.Updated" | "Organization.UserRoles.Updated" => user(&["params.userId", "data.id"]),
        _ => match event.split('.').next().unwrap_or_default() {
            "User" if data_is_a_user(body) => user(&["params.userId", "data.id"]),
            "User" => user(&["params.userId"]),
            "TrustedDevice" => user(&["data.userId", "params.userId"]),
            "Role" | "Scope" | "Organization" | "OrganizationRole" | "OrganizationScope" => None,
            interaction if interaction.starts_with("Post") => user(&["userId", "user.id"]),
            // Exceptions, and events added to Logto later.
            _ => user(&["userId", "params.userId"]),
        },
    }
}

/// Whether `data` of a `User.*` hook is a user record: if the event comes from one of Logto's own flows, or from the
/// route that creates users. All other routes have the user in their path.
fn data_is_a_user(body: &Object<'_>) -> bool {
    match body.get("matchedRoute").or_else(|| body.get("path")) {
        Some(route) => matches!(route, "\"/users\"" | "\"/api/users\""),
        None => body.get("params").is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::testing::{named, user};

    #[test]
    fn finds_subject_of_logto_events() {
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
            (
                "Organization.Membership.Updated",
                r#"{"organizationId":"o","params":{"id":"o","userId":"u8"}}"#,
                user("u8"),
            ),
            ("Organization.Membership.Updated", r#"{"organizationId":"o","addedUserIds":["a","b"]}"#, None),
            ("Role.Created", r#"{"data":{"id":"r1"}}"#, None),
            ("Grant.LimitExceeded", r#"{"userId":"u9","applicationId":"a"}"#, user("u9")),
            ("Identifier.Lockout", r#"{"value":"m@example.com"}"#, named("m@example.com")),
            ("Message.RateLimited", r#"{"recipient":"+15550100"}"#, named("+15550100")),
            ("New.Event", r#"{"params":{"userId":"u10"},"data":{"id":"x","userId":"x"}}"#, user("u10")),
        ] {
            assert_eq!(of(event, &Object::parse(body).unwrap()), expected, "{event} {body}");
        }
    }
}
