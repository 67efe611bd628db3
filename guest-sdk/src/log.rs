//! Lines for the delivery's history: `log::info!("{} rows", n)` and its three sisters.
//!
//! The host bounds lines and bytes per call; what is over the bound is cut, and the cut is noted. What is written
//! here is kept beside the delivery, so personal data does not belong in it.

use crate::host;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the filter's author.
    Debug,
    /// Worth knowing.
    Info,
    /// Something was not as expected.
    Warn,
    /// Something failed.
    Error,
}

/// Writes one line. The macros of this module are shorter.
pub fn write(level: Level, line: &str) {
    host::log(level, line);
}

/// Writes one line for the filter's author, with the arguments of `format!`.
#[macro_export]
#[doc(hidden)]
macro_rules! __debug {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Debug, &::std::format!($($line)+)) };
}

/// Writes one line that is worth knowing, with the arguments of `format!`.
#[macro_export]
#[doc(hidden)]
macro_rules! __info {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Info, &::std::format!($($line)+)) };
}

/// Writes one line on what was not as expected, with the arguments of `format!`.
#[macro_export]
#[doc(hidden)]
macro_rules! __warn {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Warn, &::std::format!($($line)+)) };
}

/// Writes one line on what failed, with the arguments of `format!`.
#[macro_export]
#[doc(hidden)]
macro_rules! __error {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Error, &::std::format!($($line)+)) };
}

#[doc(inline)]
pub use crate::{__debug as debug, __error as error, __info as info, __warn as warn};
