//! The stories: what a host does, seen from outside.

mod crash;
mod delivery;
mod filters;
mod hostile;
mod ingest;
mod lifecycle;
mod manage;
mod openapi;
mod pacing;
mod readme;
mod refusals;
mod reproduce;
mod rollout;
mod shares;
mod signatures;
mod suspension;
mod tables;
mod tenants_apart;
mod tidy;
