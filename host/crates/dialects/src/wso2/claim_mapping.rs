//! The rows of this form in `docs/reference/identities.md`.

use crate::claim_mapping::ClaimMapping;

pub(super) const CLAIM_MAPPING: ClaimMapping = ClaimMapping {
    body: "a JSON SET",
    set: "the body's text; added claims are at the end",
    event_uri: "own",
    event_value: "own",
    iss: "own; checked against `issuers_allowed`",
    jti: "own",
    iat: "own; from 100,000,000,000 on it is in milliseconds and becomes whole seconds",
    txn: "own (a number, as in older drafts of SSF, becomes text), else `rci`",
    sub_id: "own; if there is neither `sub_id` nor `sub`: iss_sub of `iss` and `user.id`",
    others: "own",
    subjects: &[
        ("all", "`sub_id` and `sub` as below; the event's `subject` as below; in the event **`user.id`**"),
        (
            "`loginFailed`",
            "then, among `user.claims`, the user name, then the e-mail address: the account of the attempt",
        ),
    ],
};
