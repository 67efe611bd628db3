//! The stories: what a host does, seen from outside.

mod delivery;
mod filters;
mod hostile;
mod ingest;
mod lifecycle;
mod manage;
mod readme;
mod refusals;
mod signatures;
mod tidy;
