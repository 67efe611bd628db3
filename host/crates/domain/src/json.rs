//! JSON as text.
//!
//! Claims are stored as the original text. A parsed tree would lose the spelling of numbers, and thereby the guarantee
//! that only filters change bytes. [`check`] validates a text once, on input. [`Object`] then parses one level of it,
//! and edits preserve every byte that they do not name.

mod check;
mod differ;
mod merge;
mod object;
mod surrogates;

pub use check::{JsonFault, JsonLimits, check, check_object, check_object_and};
pub use differ::differences;
#[cfg(test)]
pub(crate) use merge::by_levels;
pub use merge::{Merged, Named, Patch, merge_patch, reference};
pub use object::{Object, quote, write_object};
pub use surrogates::{first_lone, replace_lone};

/// What RFC 8259 calls white space.
pub fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}
