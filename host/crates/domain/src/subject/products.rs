//! Subjects of product-specific events.

use serde_json::value::RawValue;

use super::super::catalogue::WSO2_BASE;
use super::super::json::Object;
use super::{Subject, first, name_of};

/// The subject of a WSO2 event, given its type and the value of its member: `user.id`. Only a failed login has no ID
/// and contains the account name of the attempt in `user.claims`: the user name is preferred to the e-mail address.
/// Claims in all other events may be chosen by users, such as the name requested in a failed registration.
pub fn wso2(uri: &str, event: &Object<'_>) -> Option<Subject> {
    let user = event.object("user")?;
    let failed_login = || uri.strip_prefix(WSO2_BASE) == Some("login/event-type/loginFailed");
    let named = || failed_login().then(|| wso2_claim(&user)).flatten().map(Subject::Named);
    name_of(&user, "id").map(Subject::User).or_else(named)
}

/// WSO2 claims that identify a user, in order of preference.
const WSO2_NAMES: [&str; 2] = ["http://wso2.org/claims/username", "http://wso2.org/claims/emailaddress"];

fn wso2_claim(user: &Object<'_>) -> Option<String> {
    let claims: Vec<&RawValue> = serde_json::from_str(user.get("claims")?).ok()?;
    let claims: Vec<Object<'_>> = claims.iter().filter_map(|claim| Object::parse(claim.get()).ok()).collect();
    WSO2_NAMES.iter().find_map(|name| {
        claims
            .iter()
            .find(|claim| claim.string("uri").as_deref() == Some(name))
            .and_then(|claim| name_of(claim, "value"))
    })
}

/// The subject of a Logto event.
///
/// Logto sends data hooks from its own flows and from routes of its Management API. The hook of a route contains
/// `params` from the request's path, and the response of the route as `data`. For `/users/:userId/custom-data` and
/// `/users/:userId/profile`, that is data written by the user. So the subject is the user in the path, and `data.id`
/// only if `data` is a complete user record.
pub fn logto(event: &str, body: &Object<'_>) -> Option<Subject> {
    let user = |places: &[&str]| first(body, places).map(Subject::User);
    let named = |place: &str| first(body, &[place]).map(Subject::Named);
    match event {
        "Identifier.Lockout" => user(&["userId"]).or_else(|| named("value")),
        "Message.RateLimited" => user(&["userId"]).or_else(|| named("recipient")),
        "Organization.Membership.Updated" => user(&["params.userId"]),
        // One event for each user, with the user record as `data` for every route.
        "User.Roles.Updated" | "Organization.UserRoles.Updated" => user(&["params.userId", "data.id"]),
        _ => match event.split('.').next().unwrap_or_default() {
            "User" if logto_data_is_a_user(body) => user(&["params.userId", "data.id"]),
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
fn logto_data_is_a_user(body: &Object<'_>) -> bool {
    match body.get("matchedRoute").or_else(|| body.get("path")) {
        Some(route) => matches!(route, "\"/users\"" | "\"/api/users\""),
        None => body.get("params").is_none(),
    }
}

/// The subject of a platform event: `user.id`, `user_id`, `userId` or `user` in `data`, and also `id` for events of the
/// category `user`. Only events that may occur before a user is known (category `security`, and a failed challenge)
/// fall back to the attempted e-mail address or user name. In other events, users can choose these.
pub fn platform(category: &str, name: &str, body: &Object<'_>) -> Option<Subject> {
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
