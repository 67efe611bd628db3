//! The stories: what a host does, seen from outside.

mod crash;
mod delivery;
mod filters;
mod ingest;
mod lifecycle;
mod manage;
mod readme;
mod refusals;
mod signatures;
mod suspension;
mod tidy;
