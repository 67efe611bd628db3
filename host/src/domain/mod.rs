//! What Setgate speaks of, as plain values: no runtime, no network, no files, no clock, no randomness.

pub mod attempt;
pub mod backtest;
pub mod breaker;
pub mod catalogue;
pub mod chain;
pub mod delivery;
pub mod endpoint;
pub mod event;
pub mod filter;
pub mod id;
pub mod json;
pub mod limits;
pub mod pacing;
pub mod redact;
pub mod reproduction;
pub mod retry;
pub mod rollout;
pub mod secret;
pub mod set;
pub mod source;
pub mod subject;
pub mod subscription;
pub mod table;
pub mod tenant;
pub mod time;
pub mod verdict;
