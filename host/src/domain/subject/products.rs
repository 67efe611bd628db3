//! The subjects of events as products send them.

use serde_json::value::RawValue;

use super::super::catalogue::WSO2_BASE;
use super::super::json::Object;
use super::{Subject, first, name_of};

/// The subject of a WSO2 event, given its type and the value of its member: `user.id`. Only a failed login knows no id
/// and names the account that was tried: the user name, then the e-mail address, among `user.claims`. The claims of any
/// other event are values that a user chose, such as the name that a failed registration asked for.
pub fn wso2(uri: &str, event: &Object<'_>) -> Option<Subject> {
    let user = event.object("user")?;
    let failed_login = || uri.strip_prefix(WSO2_BASE) == Some("login/event-type/loginFailed");
    let named = || failed_login().then(|| wso2_claim(&user)).flatten().map(Subject::Named);
    name_of(&user, "id").map(Subject::User).or_else(named)
}

/// The claims of a WSO2 user that name it, best first.
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
/// Logto calls data hooks from its own flows and from routes of its Management API. The hook of a route carries `params`,
/// filled from the request's path, and as `data` whatever the route answered: for `/users/:userId/custom-data` and
/// `/users/:userId/profile` that is what the user wrote. So the path names the user, and `data.id` does so only if `data`
/// is a user's whole record.
pub fn logto(event: &str, body: &Object<'_>) -> Option<Subject> {
    let user = |places: &[&str]| first(body, places).map(Subject::User);
    let named = |place: &str| first(body, &[place]).map(Subject::Named);
    match event {
        "Identifier.Lockout" => user(&["userId"]).or_else(|| named("value")),
        "Message.RateLimited" => user(&["userId"]).or_else(|| named("recipient")),
        "Organization.Membership.Updated" => user(&["params.userId"]),
        // One event for each user, whose record is `data` whatever route brought it about.
        "User.Roles.Updated" | "Organization.UserRoles.Updated" => user(&["params.userId", "data.id"]),
        _ => match event.split('.').next().unwrap_or_default() {
            "User" if logto_data_is_a_user(body) => user(&["params.userId", "data.id"]),
            "User" => user(&["params.userId"]),
            "TrustedDevice" => user(&["data.userId", "params.userId"]),
            "Role" | "Scope" | "Organization" | "OrganizationRole" | "OrganizationScope" => None,
            interaction if interaction.starts_with("Post") => user(&["userId", "user.id"]),
            // Exceptions, and what Logto adds later.
            _ => user(&["userId", "params.userId"]),
        },
    }
}

/// Whether the `data` of a `User.*` hook is a user's record: if one of Logto's own flows made it, or the route that
/// creates users. Every other route has the user in its path.
fn logto_data_is_a_user(body: &Object<'_>) -> bool {
    match body.get("matchedRoute").or_else(|| body.get("path")) {
        Some(route) => matches!(route, "\"/users\"" | "\"/api/users\""),
        None => body.get("params").is_none(),
    }
}

/// The subject of a platform event: in `data`, `user.id`, `user_id`, `userId`, `user`; for events of the category
/// `user` also `id`. Only events that may come before a user is known (of the category `security`, and a failed
/// challenge) fall back on the e-mail address or user name that was tried; elsewhere a user can choose these.
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
