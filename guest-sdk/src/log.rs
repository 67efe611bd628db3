//! Writes lines to the delivery's history: `log::info!("{} rows", n)`, and likewise `debug!`, `warn!` and `error!`.
//!
//! The host limits lines and bytes per call; anything beyond is cut, and the history says so. The lines are stored with
//! the delivery, so they must not contain personal data.

use crate::host;

/// Severity of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Details for the filter's author.
    Debug,
    /// Information for the operator of the filter.
    Info,
    /// Something unexpected happened.
    Warn,
    /// Something failed.
    Error,
}

/// Writes one line. The macros of this module are shorter.
pub fn write(level: Level, line: &str) {
    host::log(level, line);
}

/// Writes one line at level `Debug`, with the arguments of `format!`.
#[macro_export]
#[doc(hidden)]
macro_rules! __debug {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Debug, &::std::format!($($line)+)) };
}

/// Writes one line at level `Info`, with the arguments of `format!`.
#[macro_export]
#[doc(hidden)]
macro_rules! __info {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Info, &::std::format!($($line)+)) };
}

/// Writes one line at level `Warn`, with the arguments of `format!`.
#[macro_export]
#[doc(hidden)]
macro_rules! __warn {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Warn, &::std::format!($($line)+)) };
}

/// Writes one line at level `Error`, with the arguments of `format!`.
#[macro_export]
#[doc(hidden)]
macro_rules! __error {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Error, &::std::format!($($line)+)) };
}

#[doc(inline)]
pub use crate::{__debug as debug, __error as error, __info as info, __warn as warn};
