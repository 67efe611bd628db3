//! Listeners: sockets, TLS, connections and their limits. Independent of the routes.

pub mod address;
mod connection;
pub(super) mod framing;
pub mod interface;
pub mod server;
pub mod settings;
pub mod tls;

pub(super) use connection::{Peer, UntilClientEnds};
