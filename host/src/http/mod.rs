//! The HTTP API: listeners, ingest, management, health. The only module that uses the HTTP server library and status
//! codes.
//!
//! From the bottom to the top; no module uses one below it in this list:
//!
//! | module | |
//! |---|---|
//! | [`problem`], `caller`, `coding` | error responses; request metadata; content codings |
//! | [`listener`] | sockets, TLS, connections and their limits |
//! | [`body_budget`], `read_limiter`, `in_progress`, `tails` | limits of requests in progress |
//! | `state` | [`AppState`], shared by all routes |
//! | `responses` | memory and authorisation of response bodies |
//! | `openapi` | one operation, its description, and the document of all operations |
//! | `extract`, `auth`, `page` | inputs of routes; each describes itself for the document |
//! | `routes` | the routes, and the table of all operations |
//! | `idempotency`, `route_filter`, `router` | middleware of all requests |

mod auth;
pub mod body_budget;
mod caller;
mod coding;
mod extract;
mod idempotency;
mod in_progress;
pub mod listener;
mod openapi;
mod page;
pub mod problem;
mod read_limiter;
mod responses;
mod route_filter;
mod router;
mod routes;
mod slots;
mod state;

pub use in_progress::InProgress;
pub use read_limiter::ReadLimiter;
pub use router::router;
pub use slots::Slots;
pub use state::{AppState, Metrics, SharedState};
