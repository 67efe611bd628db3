//! Setgate: an edge worker for identity events.
//!
//! It runs next to an identity provider, ingests security event tokens (SETs, RFC 8417) and the native event formats
//! of products, runs each tenant's WebAssembly filters over them, signs the results and delivers them.
//!
//! # Life of an event
//!
//! A product posts an event to `/ingest/{tenant}/{source}`. [`http`] reads the body up to its limit and passes it to
//! [`pipeline`]. There the request's proof is verified before any of it is parsed as JSON (`prove`); the body becomes
//! a SET with a stable `jti` (`normalize`); the matching subscriptions are found and the filter chain of each is
//! pinned by digest (`fanout`); and the event is appended to the journal of the [`setgate_ledger`], with one delivery
//! per subscription (`append`). The answer is 202 once that is on disk, and not before. A duplicate event is answered
//! 202 and stored once.
//!
//! Loop A (`fanout`) does the same for events that were appended without their deliveries, such as those with very
//! many. It writes deliveries to the outbox together with its cursor. After a crash in between it runs again, which
//! is idempotent.
//!
//! Loop B (`dispatcher`) takes due deliveries and schedules them fairly, so that neither a tenant's flood nor a slow
//! endpoint delays others. The chain runs once (`filter`): each filter is called in an instance of its own in the
//! [`setgate_sandbox`], under the tenant's limits, and decides to pass, patch, replace or drop. Its output must be a
//! valid SET with the same `iss`, `iat`, `jti`, `aud` and `txn`. If a filter faults, the policy of its binding
//! applies, which holds the delivery by default. The resulting bytes are on disk before the first send: every retry
//! and every restart sends the same.
//!
//! For each attempt the body is signed again (`seal`, by [`setgate_dialects`]) and posted to the receiver (`deliver`,
//! by [`setgate_egress`], which connects only to addresses that it has checked). A pure function interprets the
//! answer ([`setgate_domain::attempt_effects`]): delivered, due again by the subscription's schedule, or a dead letter with the
//! reason. The attempt and the delivery's next state are one commit.
//!
//! So each event ends, for each matching subscription, as delivered, dropped by the tenant's own filter, or held or
//! dead with the reason. Its history records each filter's digest, verdict and fuel, the signing key and the
//! receiver's answers. If the operator enables it, [`traces`] exports the same as spans of one trace, from sender to
//! receiver.
//!
//! `append_with`, `fan_out` and `settle` are the transactions; each is idempotent. Management requests go through
//! [`control`], and [`app`] assembles the components. `docs/explanation/architecture.md` draws the layers and
//! explains how to extend them.

pub mod app;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod demo;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod pipeline;
pub mod traces;
