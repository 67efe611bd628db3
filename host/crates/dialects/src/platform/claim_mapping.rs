//! The rows of this form in `docs/reference/identities.md`.

use crate::claim_mapping::ClaimMapping;

pub(super) const CLAIM_MAPPING: ClaimMapping = ClaimMapping {
    body: "`{type, timestamp, data, organization}`",
    set: "as for `logto`",
    event_uri: "`https://schemas.setgate.dev/events/platform/<category>/event-type/<type>`",
    event_value: "the whole body, unchanged",
    iss: "as for `logto`",
    jti: "`id`, else as for `logto`",
    iat: "`timestamp` (required)",
    txn: "none",
    sub_id: "as for `logto`",
    others: "none",
    subjects: &[
        ("all", "in `data`: **`user.id`**, **`user_id`**, **`userId`**, **`user`**"),
        ("of the category `user`", "then **`id`**"),
        (
            "of the category `security`, and `mfa.challenge_failed`",
            "then `user.email`, `email`, `user.username`, `username`: the account of the attempt",
        ),
    ],
};
