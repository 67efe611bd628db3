//! The rows of this form in `docs/reference/identities.md`.

use crate::claim_mapping::ClaimMapping;

pub(super) const CLAIM_MAPPING: ClaimMapping = ClaimMapping {
    body: "a JSON SET",
    set: "the body's text",
    event_uri: "own",
    event_value: "own",
    iss: "own; checked against `issuers_allowed`",
    jti: "own",
    iat: "as for `wso2`",
    txn: "own (as for `wso2`)",
    sub_id: "own",
    others: "own",
    subjects: &[(
        "all",
        "`sub_id` by its format (iss_sub: `sub`; opaque: `id`; email, phone_number, account, uri, did, \
            jwt_id, saml_assertion_id: their own member; aliases: the first known one; complex: `user`, else \
            device, session, application, tenant, org_unit, group); `sub`; the first event's `subject`, as in \
            older RISC drafts",
    )],
};
