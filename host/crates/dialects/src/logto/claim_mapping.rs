//! The rows of this form in `docs/reference/identities.md`.

use crate::claim_mapping::ClaimMapping;

pub(super) const CLAIM_MAPPING: ClaimMapping = ClaimMapping {
    body: "`{event, createdAt, ...}`",
    set: "built around the body: iss, jti, iat, sub_id, events",
    event_uri: "`https://schemas.setgate.dev/events/logto/<category>/event-type/<event>`",
    event_value: "the whole body, unchanged",
    iss: "the source's `issuer`, else `https://schemas.setgate.dev/sources/<tenant>/<source>`",
    jti: "`d-` + digest of the sender's delivery id, else `b-` + digest of the body",
    iat: "`createdAt`, else the time of acceptance",
    txn: "none",
    sub_id: "iss_sub of `iss` and the user's id, if there is one",
    others: "none",
    subjects: &[
        ("`Post*`", "**`userId`**, **`user.id`**"),
        (
            "`User.*`",
            "**`params.userId`**, which Logto takes from the path of its Management API; then **`data.id`**, \
            but only if `data` is a user's record: the webhook has neither route nor `params` (one of Logto's \
            own flows sent it), or its route is `/users`. The `data` of `/users/:userId/custom-data` and \
            `/users/:userId/profile` was written by the user",
        ),
        (
            "`User.Roles.Updated`, `Organization.UserRoles.Updated`",
            "**`params.userId`**, **`data.id`** (always a user's record)",
        ),
        ("`TrustedDevice.*`", "**`data.userId`**, **`params.userId`**"),
        (
            "`Organization.Membership.Updated`",
            "**`params.userId`**; the members listed in `addedUserIds` and `removedUserIds` are several",
        ),
        ("`Role.*`, `Scope.*`, `OrganizationRole.*`, `OrganizationScope.*`, other `Organization.*`", "none"),
        (
            "`Identifier.Lockout`, `Message.RateLimited`",
            "**`userId`**; then `value`, or `recipient`: the identifier of the attempt",
        ),
        (
            "`Grant.LimitExceeded`, and events that are not in [event types](events.md)",
            "**`userId`**, **`params.userId`**",
        ),
    ],
};
