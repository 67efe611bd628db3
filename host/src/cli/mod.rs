//! The commands of the program, except the demo, and its output. Every option of `serve` is also a configuration key and
//! an environment variable.

pub mod admin;
pub mod client;
pub mod config;
mod connection;
pub mod emit;
pub mod filter;
mod notify;
pub(crate) mod out;
pub(crate) mod rollout;
pub mod serve;
