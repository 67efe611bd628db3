//! Setgate: an edge worker for identity events.
//!
//! It stands next to an identity provider, takes in security event tokens (SETs, RFC 8417, and what products send in their
//! place), runs each tenant's WebAssembly filters over them, signs what comes out and delivers it.
//!
//! # Life of an event
//!
//! A product posts an event to `/ingest/{tenant}/{source}`. [`http`] reads the body up to its limit and hands it to
//! [`pipeline`]. There the source shows that the request is its own (`prove`) before anything of it is read as JSON;
//! the body becomes a SET with a stable `jti` (`normalize`); the subscriptions that want it are found and the chain of each is
//! pinned, by digest (`fanout`); and the event is appended to the journal of the [`ledger`], with one delivery for each
//! (`accept`). The answer is 202 once that is on disk, and not before. The same event again is answered 202 and kept once.
//!
//! Loop A (`fanout`) does the same for events that were appended without their deliveries, such as those with very many. It
//! writes them to the outbox together with the place it has come to. A crash in between makes it run again, which changes nothing.
//!
//! Loop B (`dispatcher`) takes deliveries that are due, in turns, so that neither a tenant's flood nor a slow endpoint
//! takes the turns of others. The chain runs once (`filter`): each filter is called in an instance of its own in the [`sandbox`],
//! under the tenant's limits, and decides to pass, patch, replace or drop. What it returns has to be a valid SET with
//! the same `iss`, `iat`, `jti`, `aud` and `txn`. A filter that faults follows its binding's policy, which is to hold the delivery
//! unless somebody chose otherwise. The bytes that come out are on disk before the first send: every retry and
//! every restart sends the same.
//!
//! For each attempt the body is signed anew (`seal`, by [`signing`]) and posted to the receiver (`deliver`, by [`egress`], which connects
//! only to addresses that it has checked). What the answer means is a pure decision (`settle`): delivered, due again by
//! the subscription's schedule, or a dead letter with the reason. The attempt and the delivery's next state are one commit.
//!
//! So each event ends, for each subscription that wants it, as delivered, dropped by the tenant's own filter, or held or
//! dead with the reason; and its history tells which filter, by digest, decided what, with how much fuel, under which
//! key it was signed and what the receiver answered. Where an operator wants it, [`traces`] shows the same as spans of one trace,
//! from sender to receiver.
//!
//! `append_with`, `fan_out` and `settle` are the transactions; each may be run again. What a person sets up goes through
//! [`control`], and [`app`] puts the parts together. `docs/explanation/architecture.md` draws the layers and
//! says how to add to them.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod crypto;
pub mod demo;
pub mod domain;
pub mod egress;
pub(crate) mod fair;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod ledger;
pub mod pipeline;
pub mod sandbox;
pub mod signing;
pub mod telemetry;
pub mod traces;
