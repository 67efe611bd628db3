//! The foundations of every part of Setgate: the clock, cryptography, authentication by API key, fair scheduling
//! between tenants, telemetry, and trusted certificates.

pub mod authenticate;
pub mod clock;
pub mod crypto;
pub mod fair;
pub mod live;
pub mod telemetry;
pub mod trust;
