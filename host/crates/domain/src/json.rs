//! JSON as text.
//!
//! Claims are stored as the original text. A parsed tree would lose the spelling of numbers, and thereby the guarantee
//! that only filters change bytes. [`check`] validates a text once, on input. [`Object`] then parses one level of it,
//! and edits preserve every byte that they do not name.

mod canonical;
mod check;
mod diff;
mod merge;
mod object;
mod surrogates;

pub use canonical::canonical;
pub use check::{JsonError, JsonLimits, check, check_object, check_object_and};
pub use diff::differences;
#[cfg(test)]
pub(crate) use merge::by_levels;
pub use merge::{Merged, Named, Patch, merge_patch, merge_reference};
pub use object::{Object, quote, write_object};
pub use surrogates::{first_lone_surrogate, replace_lone_surrogates_in};

/// White space according to RFC 8259 section 2.
pub fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}
