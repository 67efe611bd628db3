//! JSON as text.
//!
//! Claims are kept as the text they came in: a tree would lose number text, and with it the promise that nobody's bytes
//! change unless a filter changes them. [`check`] says once, at the border, that a text is sound; [`Object`] then looks
//! at one level of it, and edits leave every byte alone that they do not name.

mod check;
mod differ;
mod merge;
mod object;
mod surrogates;

pub use check::{JsonFault, JsonLimits, check, check_object, check_object_and};
pub use differ::differences;
#[cfg(test)]
pub(crate) use merge::by_levels;
#[cfg(any(fuzzing, test))]
pub(crate) use merge::reference;
pub use merge::{Merged, Named, Patch, merge_patch};
pub use object::{Object, quote, write_object};
pub use surrogates::{first_lone, replace_lone};

/// What RFC 8259 calls white space.
pub(crate) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}
