//! Dialects: everything that is specific to one product or one signature scheme.
//!
//! [`DIALECTS`] is the only list of them. Each dialect is one folder of this crate, and the rest of the host looks up
//! what it needs in the list: the proof stage verifies the signatures of sources, the normalize stage turns bodies into
//! SETs, the seal stage builds bodies in the product's own format and signs them, the management API checks keys and
//! headers, the catalogue has the event types, OpenAPI and the command line name the forms and schemes.
//!
//! Nothing here does I/O: bodies, headers, keys and the time are arguments.

pub mod catalogue;
pub mod claim_mapping;
mod dialect;
mod form;
mod hub;
mod logto;
pub mod normalize;
mod platform;
mod proof;
pub mod samples;
mod scheme;
mod set;
mod signing;
mod subject;
mod webhook;
mod wso2;

#[cfg(test)]
mod testing;

pub use dialect::{
    DIALECTS, Dialect, delivery_id, form_of, forms, is_set_by_scheme, scheme_of_proof, scheme_of_signing, schemes,
};
pub use form::BodyForm;
pub use proof::{
    MacError, MacOptions, SOURCE_KEY_BYTES_MIN, Verified, check_pasted_text, check_source_secret, sign_as_sender,
    signature_header, verify_mac,
};
pub use scheme::{Headers, Scheme};
pub use signing::{
    Error, HMAC_KEY_BYTES_MAX, HMAC_KEY_BYTES_MIN, KEYS_ACTIVE_MAX, KeyKind, NewKey, SignedHeaders, Signer,
    TEXT_BYTES_MAX, TEXT_BYTES_MIN, active_keys, generate, public_key_of, staged_key,
};
pub use subject::SUBJECT_CHARS_MAX;
