//! The data plane: the path of an event. Each stage is one struct in a file of its own, holds only the handles that it
//! uses, and takes the type that the previous stage returned. Everything specific to a product or signature scheme is
//! in [`setgate_dialects`], including `normalize` as a whole.
//!
//! ```text
//! ingest    prove      authenticates the request as coming from the source      -> Proven
//!           decode     decompresses the body                                    -> bytes
//!           normalize  turns any accepted form into a SET                       -> NewEvent
//!           fanout     finds matching subscriptions (matching), pins chains (plan) -> NewDelivery
//!           append     ==append_with: event, outbox rows and cursor, one transaction== -> Appended, DueDelivery
//!           accept     runs all of these; 202 only after the commit             -> Receipt
//!           sources    signed SETs, pushed: keys, signature and claims, then as above -> Receipt
//!
//! loop A    fanout     the same for events appended without their deliveries    -> DueDelivery
//!                      ==fan_out: outbox rows and cursor, one transaction==
//!
//! loop B    dispatcher due deliveries, fair between tenants and endpoints (lane)-> DueDelivery
//!           attempt    runs the following stages of one delivery (next)
//!           filter     runs the chain in the sandbox, once per delivery         -> Filtered
//!                      ==settle: changed bytes are stored before the first send==
//!           sign       signed SETs only: issues and signs the SET, once; ==store_signed_set==
//!           seal       builds the body and signs it for each attempt            -> Sealed
//!           deliver    one HTTP request, and the effects of its answer          -> Attempted
//!           settle     commits the next state; ==settle==                       -> delivered | due again | dead
//!
//! receivers poll       offers signed SETs to receivers that fetch them, and settles their answers
//!
//! loop C    resume_held resumes deliveries held by a filter's faults, after the tenant has decided
//!           requeue    ==requeue_with_plan: due again, with a newly pinned chain== -> DueDelivery
//!
//! loop D    replay     sends past events again to one subscription, rate-limited -> DueDelivery
//! manual    test_event a test event with its only delivery                      -> DueDelivery
//!           endpoint_verification  posts a challenge; control stores the result
//!
//! trials    canary     some subjects run a candidate (plan); ends if it faults too often
//!           shadow     runs a candidate after the chain; counted, never sent
//!           backtest   runs stored events through two versions; reported, never stored
//! ```
//!
//! `compose` builds all stages, for `app` and for the simulation in the tests of the dispatcher. Stages that make
//! deliveries due notify the dispatcher through `due_queue`. Control calls the stages through `data_plane`. A stage
//! imports earlier ones only. No transaction and no lock is held while a guest or a receiver is running. Every
//! transaction is idempotent.

pub mod accept;
mod append;
mod apply;
mod attempt;
mod backtest;
mod canary;
mod chain;
mod compose;
mod data_plane;
pub mod decode;
mod deliver;
mod dispatcher;
mod due_queue;
mod endpoint_verification;
mod endpoints;
mod fanout;
mod filter;
pub mod issuer_keys;
mod lane;
mod matching;
mod metrics;
mod next;
mod operational_event;
mod plan;
pub mod poll;
pub mod prove;
mod quotas;
pub mod readiness;
pub mod refused;
mod replay;
mod requeue;
mod resume_held;
mod reuse;
mod rollout_report;
mod seal;
pub mod settings;
mod settle;
mod shadow;
mod sign;
pub mod sources;
mod spans;
mod suspension;
mod tables;
mod test_event;
mod withdrawal;
mod witness;

pub(crate) use backtest::Backtester;
pub(crate) use chain::ChainRunner;
pub(crate) use compose::{Components, Stages, compose};
pub use data_plane::DataPlane;
pub(crate) use data_plane::{Requeues, TestEventSender, run_to_completion};
pub(crate) use due_queue::DueQueue;
pub(crate) use endpoint_verification::EndpointVerifier;
pub(crate) use poll::Poller;
pub(crate) use rollout_report::RolloutResults;
