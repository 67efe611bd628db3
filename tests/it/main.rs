//! The stories: what a host does, seen from outside.

mod clock;
mod crash;
mod delivery;
mod filters;
mod history;
mod hostile;
mod ingest;
mod lifecycle;
mod manage;
mod pacing;
mod readme;
mod receivers;
mod redrive;
mod refusals;
mod reproduce;
mod rollout;
mod shares;
mod signatures;
mod storage;
mod storage_damage;
mod suspension;
mod tables;
mod tail;
mod tidy;
