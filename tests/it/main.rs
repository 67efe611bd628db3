//! The stories: what a host does, seen from outside.

mod delivery;
mod filters;
mod ingest;
mod lifecycle;
mod manage;
mod readme;
mod refusals;
mod rollout;
mod signatures;
mod suspension;
mod tidy;
