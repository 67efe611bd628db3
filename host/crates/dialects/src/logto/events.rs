//! Event types of Logto, with the names of its webhook event list.

use crate::catalogue::{Product, setgate_uri};

pub(super) const PRODUCT: Product = Product {
    name: "logto",
    title: "Logto",
    uri: |category, name| setgate_uri("logto", category, name),
    has_lenient_names: false,
    events: EVENTS,
    aliases: &[],
};

/// Category, name, description.
#[rustfmt::skip]
const EVENTS: &[(&str, &str, &str)] = &[
    ("interaction", "PostRegister", "A user registered"),
    ("interaction", "PostSignIn", "A user signed in"),
    ("interaction", "PostSignInAdaptiveMfaTriggered", "A sign-in was asked for a further factor"),
    ("interaction", "PostResetPassword", "A user reset the password"),
    ("data", "User.Created", "A user was created"),
    ("data", "User.Deleted", "A user was deleted"),
    ("data", "User.Data.Updated", "A user's data was changed"),
    ("data", "User.SuspensionStatus.Updated", "A user was suspended or reinstated"),
    ("data", "Role.Created", "A role was created"),
    ("data", "Role.Deleted", "A role was deleted"),
    ("data", "Role.Data.Updated", "A role's data was changed"),
    ("data", "Role.Scopes.Updated", "A role's scopes were changed"),
    ("data", "OrganizationRole.Created", "An organization role was created"),
    ("data", "OrganizationRole.Deleted", "An organization role was deleted"),
    ("data", "OrganizationRole.Data.Updated", "An organization role's data was changed"),
    ("data", "OrganizationRole.Scopes.Updated", "An organization role's scopes were changed"),
    ("data", "Scope.Created", "A scope was created"),
    ("data", "Scope.Deleted", "A scope was deleted"),
    ("data", "Scope.Data.Updated", "A scope's data was changed"),
    ("data", "OrganizationScope.Created", "An organization scope was created"),
    ("data", "OrganizationScope.Deleted", "An organization scope was deleted"),
    ("data", "OrganizationScope.Data.Updated", "An organization scope's data was changed"),
    ("data", "Organization.Created", "An organization was created"),
    ("data", "Organization.Deleted", "An organization was deleted"),
    ("data", "Organization.Data.Updated", "An organization's data was changed"),
    ("data", "Organization.Membership.Updated", "An organization's members were changed"),
    ("exception", "Identifier.Lockout", "An identifier was locked out after failed attempts"),
    ("exception", "Message.RateLimited", "Mails or texts to a recipient were limited"),
    ("exception", "Grant.LimitExceeded", "An application went over its limit of grants"),
];
