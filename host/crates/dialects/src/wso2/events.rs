//! Event types of WSO2 Identity Server and Asgardeo, with the names of their webhook event pages.

use crate::catalogue::Product;

/// Base of the event type URIs: `{base}{channel}/event-type/{name}`.
pub(crate) const BASE: &str = "https://schemas.identity.wso2.org/events/";

pub(super) const PRODUCT: Product = Product {
    name: "wso2",
    title: "WSO2 Identity Server and Asgardeo",
    uri: |channel, name| format!("{BASE}{channel}/event-type/{name}"),
    has_lenient_names: false,
    events: EVENTS,
    aliases: &[],
};

/// The short name of an event that is not in the catalogue: in its own channel.
pub(super) fn unlisted(uri: &str) -> Option<String> {
    let (channel, name) = uri.strip_prefix(BASE)?.split_once("/event-type/")?;
    (!channel.is_empty() && !name.is_empty()).then(|| format!("wso2/{channel}/{name}"))
}

/// Channel, name, description.
#[rustfmt::skip]
const EVENTS: &[(&str, &str, &str)] = &[
    ("login", "loginSuccess", "A user signed in"),
    ("login", "loginFailed", "A sign-in failed"),
    ("registration", "registrationSuccess", "A user was registered"),
    ("registration", "registrationFailed", "A registration failed"),
    ("token", "accessTokenIssued", "An access token was issued"),
    ("token", "accessTokenRevoked", "Access tokens were revoked"),
    ("session", "sessionEstablished", "A session began"),
    ("session", "sessionPresented", "A session was used again"),
    ("session", "sessionRevoked", "Sessions were ended"),
    ("credential", "credentialUpdated", "A credential was changed"),
    ("user", "userCreated", "A user was created"),
    ("user", "userProfileUpdated", "A user's profile was changed"),
    ("user", "userDisabled", "A user was disabled"),
    ("user", "userEnabled", "A user was enabled"),
    ("user", "userAccountLocked", "A user's account was locked"),
    ("user", "userAccountUnlocked", "A user's account was unlocked"),
    ("user", "userDeleted", "A user was deleted"),
    ("role", "roleCreated", "A role was created"),
    ("role", "roleMetaUpdated", "A role was renamed"),
    ("role", "roleDeleted", "A role was deleted"),
    ("role", "roleUsersUpdated", "Users gained or lost a role"),
    ("role", "roleGroupsUpdated", "Groups gained or lost a role"),
    ("role", "roleIdpGroupsUpdated", "Groups of an identity provider gained or lost a role"),
    ("role", "rolePermissionsUpdated", "A role's permissions were changed"),
    ("consent", "consentAdded", "A user consented"),
    ("consent", "consentRevoked", "A user took a consent back"),
    ("consent-purpose", "purposeVersionAdded", "A consent purpose got a new version"),
];
