//! The harness of the stories in `tests/it`: a host in a separate process, tenants created through its API, senders
//! that sign as the products do, and receivers that record requests and verify signatures with code that is not part of
//! Setgate.
//!
//! A typical story:
//!
//! ```no_run
//! # async fn story() {
//! use setgate_tests::{World, event};
//!
//! let World { source, receiver, subscription, .. } = &World::start().await;
//! source.accept(event::set("one")).await;
//! subscription.verify(&receiver.received(1).await[0]).unwrap();
//! # }
//! ```
//!
//! Stories wait by polling until a generous deadline; none of them relies on a fixed sleep, and none asserts a speed.

pub mod certificate;
pub mod client;
pub mod crash;
pub mod document;
pub mod event;
pub mod everything;
pub mod frames;
pub mod h2;
pub mod host;
pub mod hostile;
pub mod judges;
pub mod late_body;
pub mod openapi;
pub mod place;
pub mod proxy;
pub mod receiver;
pub mod rude;
pub mod shim;
pub mod signature;
pub mod source;
pub mod tail;
pub mod tenant;
pub mod transmitter;
pub mod wait;
pub mod world;

pub use certificate::Authority;
pub use client::{Answer, Client};
pub use document::assert_document;
pub use everything::Everything;
pub use frames::{Frames, Treats};
pub use host::Host;
pub use late_body::LateBody;
pub use proxy::Proxy;
pub use receiver::{Received, Receiver, Reply};
pub use rude::{Ends, Manner, Rude};
pub use shim::Shim;
pub use source::{Accepted, Seed, Source};
pub use tail::Tail;
pub use tenant::{Subscription, Tenant};
pub use transmitter::{KeyServer, SetKey};
pub use wait::until;
pub use world::{Ingest, World};
