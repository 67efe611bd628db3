//! The stories: what a host does, seen from outside.

mod audit;
mod crash;
mod delivery;
mod filters;
mod hostile;
mod ingest;
mod keys;
mod lifecycle;
mod manage;
mod readme;
mod refusals;
mod reproduce;
mod rollout;
mod shares;
mod signatures;
mod suspension;
mod tables;
mod tidy;
mod verification;
mod versions;
