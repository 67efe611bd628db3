//! What Setgate speaks of, as plain values: no runtime, no network, no files, no clock, no randomness.

pub mod id;
pub mod time;
