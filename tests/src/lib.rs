//! The harness of the stories in `tests/it`: a host in a process of its own, tenants set up through its API, senders
//! that sign as the products do, and receivers that record what arrives and check signatures with code that is not
//! Setgate's.
//!
//! A story reads like this:
//!
//! ```no_run
//! # async fn story() {
//! use setgate_tests::{Host, Receiver, Seed, event};
//!
//! let host = Host::start().await;
//! let acme = host.tenant("acme").await;
//! let source = acme.source("idp", Seed::Set).await;
//! let receiver = Receiver::start().await;
//! let subscription = acme.subscribe(&receiver).create().await;
//! source.accept(event::set("one")).await;
//! subscription.verify(&receiver.received(1).await[0]).unwrap();
//! # }
//! ```
//!
//! Stories wait by asking again until a deadline that is far away; none of them sleeps for a while and hopes, and
//! none asserts how fast something was.

pub mod certificate;
pub mod client;
pub mod crash;
pub mod event;
pub mod everything;
pub mod frames;
pub mod h2;
pub mod host;
pub mod hostile;
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
pub mod wait;

pub use certificate::Authority;
pub use client::{Answer, Client};
pub use everything::Everything;
pub use frames::{Frames, Treats};
pub use host::Host;
pub use proxy::Proxy;
pub use receiver::{Received, Receiver, Reply};
pub use rude::{Ends, Manner, Rude};
pub use shim::Shim;
pub use source::{Accepted, Seed, Source};
pub use tail::Tail;
pub use tenant::{Subscription, Tenant};
pub use wait::until;
