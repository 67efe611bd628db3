//! What `setgate demo` shows.

pub mod samples;
