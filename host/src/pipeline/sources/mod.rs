//! Sources of signed SETs: the key sets of their issuers, and SETs that are pushed to them (RFC 8935).
//!
//! ```text
//! push    parse the token -> find the source's keys (key_sets) -> verify the signature -> `Authorization`
//!         -> iss, aud, other claims (setgate_dialects) -> quotas and append (accept) -> Receipt
//! ```
//!
//! Everything before the signature gives the same answer for a source that does not exist.

mod cache;
mod fetch;
mod key_sets;
mod push;
mod push_refused;
#[cfg(test)]
mod testing;

pub(super) use key_sets::KeySets;
pub use key_sets::KeysUnavailable;
pub use push::{Push, PushReceiver};
pub use push_refused::{ErrorCode, PushRefused};
