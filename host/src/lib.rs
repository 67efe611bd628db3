//! Setgate: an edge worker for identity events.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod crypto;
pub mod demo;
pub mod domain;
pub mod egress;
pub mod http;
pub mod ledger;
pub mod pipeline;
pub mod sandbox;
pub mod signing;
pub mod telemetry;
